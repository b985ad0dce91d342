"""What a served model is made of, from a Hugging Face folder or an experiment's shape."""

import json
from pathlib import Path
from typing import Any, Literal

import msgspec

from common.architecture import Architecture
from common.errors import InputError
from common.model import read
from common.names import near
from helix.inputs.layer import Shape
from helix.run.rope import Rope, rope_of

FAMILIES = (
    "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "mixtral", "qwen3_moe",
)  # fmt: skip
GEMMA = ("gemma2", "gemma3_text")
ACTIVATIONS: dict[str, Literal["silu", "gelu"]] = {"silu": "silu", "gelu_pytorch_tanh": "gelu"}
LONGEST = 4096  # tokens of context where nothing else is said


class DecoderConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes (in values) and constants of a decoder; what a family has not is at its default."""

    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    longest: int = LONGEST
    """Most tokens of context."""
    eps: float = 1e-5
    ropes: tuple[Rope, ...] = (Rope(),)
    """For layers that see the whole context, then for those with a window, if theirs differs."""
    windows: tuple[int, ...] = ()
    """By layer: the tokens that a token sees, its own with them; 0: all. Empty: all everywhere."""
    tied: bool = False
    """The output projection is the embedding."""
    ends: tuple[int, ...] = ()
    """Token ids that end an answer."""
    activation: Literal["silu", "gelu"] = "silu"
    """In the MLP; gelu by tanh."""
    attention_bias: bool = False
    """Of queries, keys and values."""
    output_bias: bool = False
    mlp_bias: bool = False
    head_norms: bool = False
    """Every head's query and key is normed before it is turned."""
    outer_norms: bool = False
    """What attention and MLP give is normed, too, before it is added."""
    norm_offset: float = 0.0
    """What is added to the weights of norms: Gemma keeps them less 1."""
    embedding_scale: float = 1.0
    score_scale: float = 0.0
    """Of attention's scores; 0: one over the root of the head's size."""
    attention_softcap: float = 0.0
    logit_softcap: float = 0.0
    experts: int = 0
    active_experts: int = 0
    expert_width: int = 0
    expert_layers: tuple[bool, ...] = ()
    """By layer: whether it has experts in place of one MLP."""
    expert_names: str = ""
    """The family by whose names a folder keeps its experts."""
    renormed: bool = True
    """The shares of the experts chosen add up to 1."""

    def window(self, layer: int) -> int:
        """Return how many tokens a token of that layer sees, 0 for all."""
        return self.windows[layer] if self.windows else 0

    def rope(self, layer: int) -> int:
        """Return which of `ropes` turns the heads of that layer."""
        return len(self.ropes) - 1 if self.window(layer) else 0

    def has_experts(self, layer: int) -> bool:
        """Return whether that layer has experts."""
        return bool(self.expert_layers) and self.expert_layers[layer]


def config_of_shape(shape: Shape, layers: int, vocabulary: int, longest: int) -> DecoderConfig:
    """Return the configuration of a model with random weights."""
    return DecoderConfig(
        layers=layers,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_size=shape.head_size,
        vocabulary=vocabulary,
        longest=longest,
    )


def read_config(folder: Path) -> DecoderConfig:
    """Return the configuration of a Hugging Face folder.

    Raises:
        InputError: its family is none of `FAMILIES`, it is quantized, or has parts that are not
            implemented here.
    """
    path = folder / "config.json"
    model = read(path)
    if model.family not in FAMILIES:
        raise InputError(
            f"{path}: models of the family {model.family} are not served, only"
            f" {', '.join(FAMILIES)}{near(model.family, FAMILIES)}"
        )
    if model.quantization:
        raise InputError(
            f"{path}: its weights are quantized ({model.quantization.method}), which is not served;"
            " take the checkpoint in 16 or 32 bit"
        )
    words = json.loads(path.read_text(encoding="utf-8-sig"))
    try:
        return _config(model, words | words.get("text_config", {}))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _config(model: Architecture, words: dict[str, Any]) -> DecoderConfig:
    gemma, facts = model.family in GEMMA, model.facts
    usual = "gelu_pytorch_tanh" if gemma else "silu"
    said = words.get("hidden_activation") or words.get("hidden_act") or usual
    # Gemma's first files say gelu and mean its tanh form, as transformers reads them.
    said = usual if gemma and said == "gelu" else said
    if said not in ACTIVATIONS:
        raise InputError(f"hidden_act is {said!r}, expected one of {', '.join(ACTIVATIONS)}")
    numbers = [model.window(layer) for layer in range(model.layers)]
    ends, longest = words.get("eos_token_id"), model.context
    scale = words.get("query_pre_attn_scalar", 256) ** -0.5 if gemma else 0.0
    return DecoderConfig(
        layers=model.layers,
        hidden_size=model.hidden,
        intermediate_size=model.mlp_width,
        heads=model.heads,
        kv_heads=model.kv_heads,
        head_size=model.head_dim,
        vocabulary=model.vocabulary,
        longest=longest,
        eps=words.get("rms_norm_eps", 1e-5 if model.family in ("mistral", "mixtral") else 1e-6),
        ropes=_ropes(model.rope, longest),
        windows=tuple(numbers) if any(numbers) else (),
        tied=model.tied,
        ends=() if ends is None else tuple(ends) if isinstance(ends, list) else (ends,),
        activation=ACTIVATIONS[said],
        attention_bias=bool(facts["attention_bias"]),
        output_bias=bool(facts["attention_bias"] and facts["output_bias"]),
        mlp_bias=bool(facts["mlp_bias"]),
        head_norms=bool(facts["qk_norm"]),
        outer_norms=gemma,
        norm_offset=float(gemma),
        embedding_scale=model.hidden**0.5 if gemma else 1.0,
        score_scale=scale,
        attention_softcap=model.attention_softcap,
        logit_softcap=model.logit_softcap,
        experts=model.experts,
        active_experts=model.active_experts,
        expert_width=model.expert_width,
        expert_layers=tuple(model.has_experts(i) for i in range(model.layers)),
        expert_names=model.family * bool(model.experts),
        renormed=model.family == "mixtral" or bool(words.get("norm_topk_prob", False)),
    )


def _ropes(words: dict[str, Any], context: int) -> tuple[Rope, ...]:
    """Return how heads turn; layers with a window may have their own angle, never stretched."""
    whole = rope_of(words, context)
    local = words.get("rope_local_theta")
    return (whole,) if local is None else (whole, Rope(rope_theta=local))
