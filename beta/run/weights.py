"""A BERT classifier's sizes and weights: random ones by name, or from a Hugging Face folder.

Every tensor is made or read alone, by the name that transformers gives it in BERT, so a worker
holds its own stage's only. Encoders of BERT's shape are read by their own names (`families`).
"""

from hashlib import sha256
from pathlib import Path
from typing import Literal, Protocol

import msgspec
import torch

from beta.inputs.shapes import Shape
from beta.run.families import FAMILIES, Family, own_name
from beta.run.folders import classifier_config, labels_of
from common.errors import InputError

STANDARD_DEVIATION = 0.02
"""Of random weights, as transformers initialises BERT."""
ACTIVATIONS = ("gelu", "relu", "gelu_new", "gelu_pytorch_tanh")


class Bert(msgspec.Struct, frozen=True, kw_only=True):
    """What a BERT classifier is, by the names of transformers' configuration."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    num_labels: int = 2
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"
    pooling: Literal["tanh", "relu"] = "tanh"
    """Activation before the head."""
    first_position: int = 0
    """Of the first token; above 0 a padding token, whose id is one less, stays at its id's."""


class Weights(Protocol):
    """Where a model's tensors come from."""

    def tensor(self, name: str) -> torch.Tensor:
        """Return a whole tensor by its name in transformers, on the CPU."""
        ...


def bert_of(shape: Shape) -> Bert:
    """Return the sizes of a shape without a folder."""
    return Bert(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.hidden,
        vocab_size=shape.vocabulary,
        max_position_embeddings=shape.sequence,
        num_labels=shape.labels,
    )


class RandomWeights:
    """Normal weights, each drawn from its name and the seed; norms 1, biases 0."""

    def __init__(self, bert: Bert, seed: int) -> None:
        self.bert, self.seed = bert, seed

    def tensor(self, name: str) -> torch.Tensor:
        """Return the tensor of that name."""
        size = size_of(name, self.bert)
        if name.endswith("LayerNorm.weight"):
            return torch.ones(size)
        if name.endswith("bias"):
            return torch.zeros(size)
        digest = sha256(f"{self.seed} {name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:6], "big"))
        return torch.empty(size).normal_(0, STANDARD_DEVIATION, generator=generator)


class FolderWeights:
    """The tensors of a folder's *.safetensors files, by the names that its family has for them."""

    def __init__(self, folder: Path, family: Family) -> None:
        from safetensors import safe_open

        self.folder, self.family = folder, family
        self.file_of = dict[str, Path]()
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                self.file_of |= dict.fromkeys(file.keys(), path)
        if not self.file_of:
            raise InputError(f"{folder}: no *.safetensors in it; save the model in that format")

    def tensor(self, name: str) -> torch.Tensor:
        """Return the tensor that BERT calls so; zeros for token types where there are none."""
        from safetensors import safe_open

        own = own_name(self.family, name)
        if not own:
            return torch.zeros_like(self.tensor("bert.embeddings.word_embeddings.weight")[:1])
        if own not in self.file_of:
            raise InputError(
                f"{self.folder}: no tensor {own}; it would be random, as in a model without a"
                " classifier's head: train or save it as a sequence classifier"
            )
        with safe_open(self.file_of[own], "pt") as file:
            return file.get_tensor(own).float()


def size_of(name: str, bert: Bert) -> tuple[int, ...]:
    """Return the sizes of the tensor of that name."""
    hidden, inner = bert.hidden_size, bert.intermediate_size
    rows = {
        "bert.embeddings.word_embeddings.weight": bert.vocab_size,
        "bert.embeddings.position_embeddings.weight": bert.max_position_embeddings,
        "bert.embeddings.token_type_embeddings.weight": bert.type_vocab_size,
        "classifier.weight": bert.num_labels,
    }
    if name in rows:
        return (rows[name], hidden)
    if name == "classifier.bias":
        return (bert.num_labels,)
    widens = "intermediate" in name
    if name.endswith("bias") or "LayerNorm" in name:
        return (inner,) if widens else (hidden,)
    narrows = name.endswith("output.dense.weight") and "attention" not in name
    return (inner if widens else hidden, inner if narrows else hidden)


def read_bert(folder: Path) -> Bert | None:
    """Return the sizes of a folder's BERT, or of its like; None if it holds another architecture.

    Raises InputError where it holds no sequence classifier.
    """
    config = classifier_config(folder)
    family = FAMILIES.get(config["model_type"])
    if family is None:
        return None
    path = folder / "config.json"
    sizes = {bert: config[own] for bert, own in family.sizes.items() if own in config}
    pad = config.get("pad_token_id")
    reading = {
        "num_labels": labels_of(config),
        "pooling": family.pooling,
        "first_position": (pad or 0) + 1 if family.counts_past_padding else 0,
    }
    try:
        bert = msgspec.convert({**config, **sizes, **reading}, Bert, strict=False)
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: no configuration of a BERT classifier: {error}") from error
    if bert.hidden_act not in ACTIVATIONS:
        raise InputError(f"{path}: hidden_act {bert.hidden_act!r}, expected one of {ACTIVATIONS}")
    return bert


def open_model(shape: Shape, seed: int) -> tuple[Bert | None, Weights]:
    """Return a model's sizes (None: no BERT, only as a whole) and where its weights come from."""
    if shape.folder:
        folder = Path(shape.folder)
        bert = read_bert(folder)
        kind = classifier_config(folder)["model_type"]
        return bert, FolderWeights(folder, FAMILIES.get(kind, FAMILIES["bert"]))
    bert = bert_of(shape)
    return bert, RandomWeights(bert, seed)
