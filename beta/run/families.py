"""Encoders of BERT's shape by other names: RoBERTa, XLM-RoBERTa and DistilBERT.

They compute what BERT computes; only tensors and sizes are called differently, a part is missing
(DistilBERT has no token types, and another activation before its head), or positions are counted
from elsewhere (RoBERTa begins behind its padding token's id). `transformers.models.*.modeling_*`.
"""

from typing import NamedTuple


class Family(NamedTuple):
    """What a model type calls BERT's tensors and sizes."""

    tensors: tuple[tuple[str, str], ...]
    """(BERT's, its own) beginnings or parts of names, the first that fits; empty: none has it."""
    sizes: dict[str, str]
    """BERT's field -> its own, in config.json."""
    pooling: str = "tanh"
    """Activation before the head."""
    counts_past_padding: bool = False
    """Whether positions begin behind the padding token's id."""


_LAYER = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}
_ROBERTA = Family(
    (
        ("bert.pooler.dense", "classifier.dense"),
        ("classifier", "classifier.out_proj"),
        ("bert.", "roberta."),
    ),
    {},
    counts_past_padding=True,
)
FAMILIES = {
    "bert": Family((), {}),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "distilbert": Family(
        (
            ("bert.pooler.dense", "pre_classifier"),
            ("bert.embeddings.token_type_embeddings", ""),
            ("bert.encoder.layer.", "distilbert.transformer.layer."),
            ("bert.", "distilbert."),
        ),
        {
            "hidden_size": "dim",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
            "intermediate_size": "hidden_dim",
            "hidden_act": "activation",
        },
        pooling="relu",
    ),
}
"""By `model_type`."""


def own_name(family: Family, name: str) -> str:
    """Return what a family calls the tensor that BERT calls so; empty where it has none."""
    for berts, own in family.tensors:
        if name.startswith(berts):
            found = own and own + name[len(berts) :]
            break
    else:
        return name
    before, layer, rest = found.partition(".transformer.layer.")
    if not layer:
        return found
    number, _, inner = rest.partition(".")
    stem, kind = inner.rsplit(".", 1)
    return f"{before}{layer}{number}.{_LAYER[stem]}.{kind}"
