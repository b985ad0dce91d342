"""A model of Hugging Face's `config.json` as ours: sizes by `common.model`, numerics by the file.

Families gpt2, llama, mistral, qwen2, qwen3, gemma2 and gemma3 (text). Of others the layers are
not built here (experts, latent attention, encoders), and so they are refused by name.
"""

import json
from pathlib import Path
from typing import Any

import msgspec

from common.architecture import Architecture, sheet
from common.errors import InputError
from common.model import read
from common.names import look_up
from vocab_parallel.inputs.model import Model

_FAMILIES = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text")
_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


def from_config(model: Model) -> Model:
    """Return the model of its `config`; itself without one.

    Raises:
        InputError: the file has no such model, or one whose layers are not built here.
    """
    if not model.config:
        return model
    if given := _given(model):
        raise InputError(
            f"model.{given[0]} is given beside model.config, which says it; leave it out"
        )
    try:
        found = read(model.config)
    except InputError as error:
        raise InputError(f"model.config: {error}") from error
    _check(found, model)
    facts = found.facts
    sizes = Model(
        layers=found.layers,
        hidden=found.hidden,
        heads=found.heads,
        kv_heads=found.kv_heads,
        head_dim=found.head_dim,
        ffn=found.mlp_width,
        sequence=model.sequence,
        vocabulary=found.vocabulary,
        tied=found.tied,
        gated=bool(facts["gated"]),
        biases="all" if facts["mlp_bias"] else "qkv" if facts["attention_bias"] else "none",
        norm="layer" if facts["norm_bias"] else "rms",
        norms=4 if facts["norms"] == 4 else 2,
        qk_norm=bool(facts["qk_norm"]),
        positions="learned" if facts["learned"] else "rope",
        windows=_windows(found),
        attention_softcap=found.attention_softcap,
        logit_softcap=found.logit_softcap,
    )
    return msgspec.structs.replace(sizes, **_numerics(found, _raw(model.config)))


def _given(model: Model) -> list[str]:
    """Return the fields that are given beside the config."""
    unsaid = Model(config=model.config)
    fields = [field for field in model.__struct_fields__ if field not in ("config", "sequence")]
    return [field for field in fields if getattr(model, field) != getattr(unsaid, field)]


def _check(found: Architecture, model: Model) -> None:
    """Refuse what is not built here."""
    if found.family not in _FAMILIES:
        raise InputError(
            f"model.config: {found.family} has layers that are not built here; expected one of"
            f" {', '.join(_FAMILIES)}"
        )
    if found.quantization is not None:
        raise InputError(
            f"model.config: weights packed by {found.quantization.method} are not trained; name an"
            " unpacked model"
        )
    if found.facts["attention_bias"] and found.facts["output_bias"] and not found.facts["mlp_bias"]:
        raise InputError(
            "model.config: attention_bias = true with a bias behind the output projection is not"
            " built here; set it to false"
        )
    if model.sequence > found.context:
        raise InputError(
            f"model.sequence is {model.sequence}, but model.config has positions for"
            f" {found.context}; choose {found.context} or less"
        )


def _windows(found: Architecture) -> tuple[int, ...]:
    """Return the layers' windows; empty where none has one."""
    windows = tuple(found.window(layer) for layer in range(found.layers))
    return windows if any(windows) else ()


def _raw(config: str) -> dict[str, Any]:
    """Return a config's own words, for what changes no size."""
    path = Path(config) / "config.json" if Path(config).is_dir() else Path(config)
    if path.suffix == ".json":
        words = json.loads(path.read_text("utf-8-sig"))
        return words | (words.get("text_config") or {})
    if path.suffix == ".toml":
        return {}
    return dict(look_up(config, sheet("catalogue"), "model")["config"])


def _numerics(found: Architecture, raw: dict[str, Any]) -> dict[str, Any]:
    """Return what changes results, but no size; defaults are those of transformers' classes."""
    gemma, rope = found.family.startswith("gemma"), found.rope
    usual = "gelu_new" if found.family == "gpt2" else "gelu_pytorch_tanh" if gemma else "silu"
    name = str(raw.get("hidden_activation") or raw.get("activation_function") or usual)
    name = name if gemma or found.family == "gpt2" else str(raw.get("hidden_act", usual))
    small = 1e-5 if found.family == "gpt2" else 1e-6
    eps = raw.get("rms_norm_eps", raw.get("layer_norm_epsilon", small))
    scalar = raw.get("query_pre_attn_scalar", 256) if gemma else 0
    return {
        "activation": look_up(name, _ACTIVATIONS, "model.config: hidden_act"),
        "norm_eps": float(eps),
        "norm_offset": gemma,
        "rope_theta": float(rope.get("rope_theta", 10000.0)),
        "rope_local_theta": float(rope.get("rope_local_theta", 0.0)),
        "rope_factor": _rope_factor(rope),
        "attention_scale": float(scalar) ** -0.5 if scalar else 0.0,
        "scaled_embedding": gemma,
    }


def _rope_factor(rope: dict[str, Any]) -> float:
    """Return by what positions are divided (linear scaling).

    Other kinds stretch some wavelengths only; -1 stands for them, and `run` refuses it: no time or
    size depends on them.
    """
    kind = rope.get("rope_type", "default")
    if kind == "default":
        return 1.0
    return float(rope["factor"]) if kind == "linear" else -1.0
