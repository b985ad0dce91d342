"""What a Hugging Face configuration says of a model, in the fields of ours."""

import json
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from common.architecture import Architecture
from common.errors import InputError
from common.model import read

FamilyName = Literal["llama", "mistral", "qwen2", "qwen3"]
_USUAL_EPSILON = 1e-6


class Llama3Rope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How Llama 3.1 stretches rotary positions: by wavelength, as transformers' `llama3` does."""

    factor: float = 8.0
    """By which wavelengths above `original_context` / `low` are stretched."""
    low: float = 1.0
    """Wavelengths above `original_context` / `low` are stretched by the whole factor."""
    high: float = 4.0
    """Wavelengths below `original_context` / `high` stay; between both it is interpolated."""
    original_context: int = 8192
    """Tokens that the model was trained on before."""

    def __post_init__(self) -> None:
        """Refuse numbers that do not make a stretching."""
        if not (self.factor > 0 and 0 < self.low < self.high and self.original_context > 0):
            raise InputError(
                f"model.rope_scaling has factor {self.factor}, low {self.low}, high {self.high} and"
                f" original_context {self.original_context}, expected above 0 and low below high"
            )


def described(source: str) -> dict[str, Any]:
    """Return the fields of a model that a configuration gives.

    Raises InputError where it is of another family, or has what cannot be run here.
    """
    found = read(source)
    families = get_args(FamilyName)
    if found.family not in families:
        raise InputError(
            f"{source}: models of the family {found.family} are not planned or run here, only"
            f" {', '.join(families)}"
        )
    if found.quantization is not None:
        raise InputError(f"{source}: quantized weights cannot be trained; name the whole model")
    _check_known(source, found)
    rope = found.rope
    scaling = None
    if rope["rope_type"] == "llama3":
        scaling = Llama3Rope(
            factor=rope["factor"],
            low=rope["low_freq_factor"],
            high=rope["high_freq_factor"],
            original_context=rope["original_max_position_embeddings"],
        )
    return {
        "layers": found.layers,
        "hidden": found.hidden,
        "heads": found.heads,
        "ffn": found.mlp_width,
        "kv_heads": found.kv_heads,
        "vocabulary": found.vocabulary,
        "family": found.family,
        "head_dim": None if found.head_dim * found.heads == found.hidden else found.head_dim,
        "qkv_bias": bool(found.facts["attention_bias"]),
        "qk_norm": bool(found.facts["qk_norm"]),
        "rope_base": float(rope["rope_theta"]),
        "rope_scaling": scaling,
        "norm_epsilon": _epsilon(source),
        "window": max(map(found.window, range(found.layers))),
    }


def _check_known(source: str, found: Architecture) -> None:
    """Raise InputError where an architecture has parts that the layers here have not."""
    facts, rope = found.facts, found.rope
    odd = {
        "biases on every linear map": facts["mlp_bias"],
        "a bias on attention's output": facts["attention_bias"] and facts["output_bias"],
        f"rotary positions of the type {rope['rope_type']!r}": rope["rope_type"]
        not in ("default", "llama3"),
        "positions that turn a part of a head": rope.get("partial_rotary_factor", 1.0) != 1.0,
        "windows in some layers only": len(set(map(found.window, range(found.layers)))) > 1,
    }
    for what, is_so in odd.items():
        if is_so:
            raise InputError(f"{source}: a model with {what} is not planned or run here")


def _epsilon(source: str) -> float:
    """Return what is added to the mean square; transformers' default where nothing says it."""
    path = Path(source) / "config.json" if Path(source).is_dir() else Path(source)
    if path.suffix == ".json" and path.is_file():
        return float(json.loads(path.read_text("utf-8-sig")).get("rms_norm_eps", _USUAL_EPSILON))
    return _USUAL_EPSILON
