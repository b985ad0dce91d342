"""Models against transformers: defaults of its classes, parameters and FLOP of its modules."""

import json
import warnings
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.architecture import Architecture, sheet
from common.model import read

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

MODELS = Path(__file__).parent / "models"
FAMILIES = tuple(sheet()["families"])
NEEDS = {"deepseek_v2": {"num_experts_per_tok": 6}}  # its class has no default
LIKE = {  # ours: what transformers calls it, where its class has it
    "layers": "num_hidden_layers", "hidden": "hidden_size", "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads", "mlp_width": "intermediate_size", "vocabulary": "vocab_size",
    "context": "max_position_embeddings", "tied": "tie_word_embeddings",
    "active_experts": "num_experts_per_tok", "expert_width": "moe_intermediate_size",
}  # fmt: skip


def config_of(words: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return transformers.CONFIG_MAPPING[words["model_type"]].from_dict(dict(words))


def module_of(words: dict[str, Any], device: str = "meta") -> Any:
    kind = (
        transformers.AutoModel
        if words["model_type"] == "bert"
        else transformers.AutoModelForCausalLM
    )
    with torch.device(device), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kind.from_config(config_of(words), attn_implementation="eager")


def same(model: Architecture, other: Architecture) -> bool:
    """Whether two models agree, however their files say which layers have a window."""
    rules = ("use_window", "window", "full_layers", "window_pattern")

    def plain(of: Architecture) -> list[Any]:
        fields = msgspec.structs.asdict(of) | {"notes": (), "layer_types": ()}
        fields["facts"] = {word: n for word, n in of.facts.items() if word not in rules}
        return [fields, [of.window(layer) for layer in range(of.layers)]]

    return plain(model) == plain(other)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_file_leaves_out_is_as_in_transformers(family: str) -> None:
    words = {"model_type": family} | NEEDS.get(family, {})
    model, config = read(words), config_of(words)
    known = {ours: getattr(config, theirs, None) for ours, theirs in LIKE.items()}
    if not model.mlp_width:  # every layer has experts: the one width is theirs
        known["expert_width"] = known.pop("mlp_width")
    known = {ours: value for ours, value in known.items() if value is not None}
    assert {ours: getattr(model, ours) for ours in known} == known
    types = getattr(config, "layer_types", None) or []
    assert [bool(model.window(i)) for i in range(len(types))] == [
        "sliding" in kind for kind in types
    ]
    rope = getattr(config, "rope_parameters", None) or {}
    full = rope.get("full_attention", rope)
    assert {word: model.rope.get(word) for word in full} == full
    if rope is not full:
        assert model.rope["rope_local_theta"] == rope["sliding_attention"]["rope_theta"]


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.json")), ids=lambda path: path.stem)
def test_a_config_that_transformers_saves_is_the_same_model(path: Path, tmp_path: Path) -> None:
    words = json.loads(path.read_text())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config_of(words).save_pretrained(tmp_path)
    assert same(read(tmp_path), read(path))


few, flag = st.integers(1, 4), st.booleans()
WIDTH = {"intermediate_size": st.integers(1, 40)}
BIAS = {"attention_bias": flag}
EXPERTS = {"num_experts_per_tok": few, "moe_intermediate_size": st.integers(1, 9)}
LATENT = {
    "q_lora_rank": st.none() | few,
    "kv_lora_rank": few,
    "qk_nope_head_dim": few,
    "qk_rope_head_dim": few.map(lambda n: 2 * n),
    "v_head_dim": few,
    "first_k_dense_replace": st.integers(0, 4),
    "n_routed_experts": st.integers(4, 6),
    "n_shared_experts": few,
}
LOCAL = {"num_local_experts": st.integers(4, 6), "num_experts_per_tok": few}
STEPS = {
    "num_experts": st.integers(4, 6),
    "decoder_sparse_step": few,
    "mlp_only_layers": st.lists(st.just(0), max_size=1),
}
OPTIONS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "gpt2": {"n_inner": st.none() | st.integers(1, 40)},
    "bert": WIDTH | {"type_vocab_size": few, "tie_word_embeddings": st.just(True)},
    "llama": WIDTH | BIAS | {"mlp_bias": flag},
    "mistral": WIDTH,
    "mixtral": WIDTH | LOCAL,
    "qwen2": WIDTH,
    "qwen3": WIDTH | BIAS,
    "qwen3_moe": WIDTH | BIAS | EXPERTS | STEPS,
    "gemma2": WIDTH | BIAS,
    "gemma3_text": WIDTH | BIAS,
    "deepseek_v2": WIDTH | BIAS | EXPERTS | LATENT | {"mlp_bias": flag},
    "deepseek_v3": WIDTH | BIAS | EXPERTS | LATENT,
    "gpt_oss": WIDTH | BIAS | LOCAL,
    "phi3": WIDTH,
}
PLAIN = ("gpt2", "bert", "deepseek_v2", "deepseek_v3")  # no KV heads and head_dim of their own
FIXED = ("qwen3", "gemma2", "gemma3_text", "gpt_oss")  # with a head_dim of their class


def sizes(family: str) -> st.SearchStrategy[dict[str, Any]]:
    """Return random sizes and options of a family, in the words of its configuration class."""
    words = {
        "num_hidden_layers": few,
        "vocab_size": st.integers(1, 99),
        "max_position_embeddings": st.integers(1, 50),
        "tie_word_embeddings": flag,
    }

    def with_heads(
        told: tuple[dict[str, Any], int, int, int, int | None],
    ) -> dict[str, Any]:
        found, kv_heads, groups, size, head_dim = told
        heads = kv_heads * groups
        found |= {
            "model_type": family,
            "num_attention_heads": heads,
            "hidden_size": 2 * heads * size,
        }
        if family not in PLAIN:
            found |= {"num_key_value_heads": kv_heads, "pad_token_id": None}
            found |= {"head_dim": 2 * (head_dim or size)} if head_dim or family in FIXED else {}
        if family == "deepseek_v3":
            found["num_key_value_heads"] = heads
        return found

    options = st.fixed_dictionaries(words | OPTIONS[family])
    return st.tuples(options, few, few, few, st.none() | few).map(with_heads)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_random_models_have_the_parameters_of_their_modules(
    family: str, data: st.DataObject
) -> None:
    words = data.draw(sizes(family))
    module, parts = module_of(words), read(words).parameters()
    body = getattr(module, "model", getattr(module, "transformer", module))
    blocks = getattr(body, "layers", None) or getattr(body, "h", None) or body.encoder.layer
    counted = [sum(p.numel() for p in block.parameters()) for block in blocks]
    assert list(parts.layers) == counted
    assert parts.embedding == module.get_input_embeddings().weight.numel()
    assert parts.total == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3_text", "qwen3", "phi3", "deepseek_v2"])
def test_flop_are_those_that_torch_counts(family: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    words = {"model_type": family, "vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2}
    words |= {"num_attention_heads": 4, "pad_token_id": None}
    if family == "deepseek_v2":
        words |= {"first_k_dense_replace": 2, "num_experts_per_tok": 1, "kv_lora_rank": 8}
    elif family != "gpt2":
        words |= {"num_key_value_heads": 2, "intermediate_size": 48}
    module, model, tokens = module_of(words, device="cpu"), read(words), 7
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.arange(tokens)[None])
    operations = {str(of): n for of, n in counter.get_flop_counts()["Global"].items()}
    scores = operations.pop("aten.bmm", 0)  # every token to every other, masked afterwards
    if rotary := scores - tokens * sum(model.attention_flop(tokens)):
        assert 0 < rotary < scores / 100
    assert sum(operations.values()) == tokens * model.linear_flop().total
