"""What a LLaMA is made of, from a Hugging Face folder or an experiment's shape."""

import json
import math
from pathlib import Path
from typing import Any

import msgspec

from common.errors import InputError
from helix.inputs.roofline import Shape

DEFAULT_THETA = 10_000.0
LONGEST = 4096  # tokens of context where nothing else is said


class RopeScaling(msgspec.Struct, frozen=True, kw_only=True):
    """How Llama 3.1 and later stretch slow rotations beyond the context of their training."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


class LlamaConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes and constants of a LLaMA; names as in the papers, sizes in values."""

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
    theta: float = DEFAULT_THETA
    scaling: RopeScaling | None = None
    tied: bool = False
    """The output projection is the embedding."""
    ends: tuple[int, ...] = ()
    """Token ids that end an answer."""

    def frequencies(self) -> list[float]:
        """Return the angle per position of each pair of a head's values (RoFormer, eq. 15)."""
        half = range(0, self.head_size, 2)
        plain = [self.theta ** (-i / self.head_size) for i in half]
        return plain if self.scaling is None else [_stretched(f, self.scaling) for f in plain]


def _stretched(frequency: float, scaling: RopeScaling) -> float:
    """Return the frequency as Llama 3.1 has it: slow ones divided, fast ones kept."""
    turns = scaling.original_max_position_embeddings * frequency / (2 * math.pi)
    if turns < scaling.low_freq_factor:
        return frequency / scaling.factor
    if turns > scaling.high_freq_factor:
        return frequency
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    return (1 - kept) * frequency / scaling.factor + kept * frequency


def config_of_shape(shape: Shape, layers: int, vocabulary: int, longest: int) -> LlamaConfig:
    """Return the configuration of a model with random weights."""
    return LlamaConfig(
        layers=layers,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_size=shape.hidden_size // shape.heads,
        vocabulary=vocabulary,
        longest=longest,
    )


def read_config(folder: Path) -> LlamaConfig:
    """Return the configuration of a Hugging Face folder.

    Raises:
        InputError: it is no LLaMA, or one with parts that are not implemented here.
    """
    path = folder / "config.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', error)}") from error
    if found.get("model_type") != "llama":
        raise InputError(f"{path}: model_type is {found.get('model_type')!r}, expected 'llama'")
    for key in ("attention_bias", "mlp_bias"):
        if found.get(key):
            raise InputError(f"{path}: {key} is set; only LLaMA layers without bias are served")
    if found.get("hidden_act", "silu") != "silu":
        raise InputError(f"{path}: hidden_act is {found['hidden_act']!r}, expected 'silu'")
    try:
        return _config(found, path)
    except KeyError as error:
        raise InputError(f"{path}: there is no {error}") from error


def _config(found: dict[str, Any], path: Path) -> LlamaConfig:
    # transformers 5 writes both rope fields as one table, older releases as two.
    rope = found.get("rope_parameters") or found.get("rope_scaling") or {}
    heads, hidden = found["num_attention_heads"], found["hidden_size"]
    ends = found.get("eos_token_id")
    return LlamaConfig(
        layers=found["num_hidden_layers"],
        hidden_size=hidden,
        intermediate_size=found["intermediate_size"],
        heads=heads,
        kv_heads=found.get("num_key_value_heads") or heads,
        head_size=found.get("head_dim") or hidden // heads,
        vocabulary=found["vocab_size"],
        longest=found.get("max_position_embeddings", LONGEST),
        eps=found.get("rms_norm_eps", 1e-6),
        theta=rope.get("rope_theta") or found.get("rope_theta", DEFAULT_THETA),
        scaling=_scaling(rope, path),
        tied=found.get("tie_word_embeddings", False),
        ends=() if ends is None else tuple(ends) if isinstance(ends, list) else (ends,),
    )


def _scaling(rope: dict[str, Any], path: Path) -> RopeScaling | None:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return None
    if kind != "llama3":
        raise InputError(f"{path}: rope_type is {kind!r}, expected 'default' or 'llama3'")
    return RopeScaling(**{field: rope[field] for field in RopeScaling.__struct_fields__})
