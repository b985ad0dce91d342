"""A Hugging Face `config.json` against a model: what is not the same model is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from common.errors import InputError
from puzzle.inputs.model import Llama, Role

FILE = "config.json"

_FIELDS = {
    "hidden_size": "hidden",
    "intermediate_size": "ffn",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "vocab_size": "vocabulary",
    "rms_norm_eps": "norm_epsilon",
    "rope_theta": "rope_base",
}
"""Hugging Face's names and ours."""


def read_config(folder: Path) -> dict[str, Any]:
    """Return a folder's configuration; empty where it has none."""
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected a JSON object")
    return found


def is_tied(config: dict[str, Any]) -> bool:
    """Say whether the head is the embedding."""
    return config.get("tie_word_embeddings") is True


def check_config(folder: Path, config: dict[str, Any], model: Llama, role: Role) -> None:
    """Raise InputError where a configuration says that its weights are of another model.

    Norms' epsilon, rotary base and heads do not show in the shapes of weights: with other values
    the same files are another model. What a configuration does not say is not checked.
    """
    path, rotary = folder / FILE, _rotary(config)
    told = config | ({"rope_theta": rotary["rope_theta"]} if "rope_theta" in rotary else {})
    ours = config_of(model, causal=role == "actor")
    for name, field in _FIELDS.items():
        if told.get(name) not in (None, ours[name]):
            raise InputError(
                f"{path}: {name} is {told[name]}, the experiment's model has {ours[name]}; set"
                f" {role}.{field}"
            )
    rope_type = "default" if model.rope_scaling is None else "llama3"
    biased = model.qkv_bias and model.family != "qwen2"  # whose configuration does not say it
    kinds: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
        ("model_type", config.get("model_type"), (None, model.family)),
        ("hidden_act", config.get("hidden_act"), (None, "silu")),
        ("head_dim", config.get("head_dim"), (None, model.head_size)),
        ("attention_bias", config.get("attention_bias"), (None, biased)),
        ("mlp_bias", config.get("mlp_bias"), (None, False)),
        ("rope_type", rotary.get("rope_type", rotary.get("type")), (None, rope_type)),
        ("sliding_window", _window(config), (None, model.window or None)),
        *((name, rotary.get(name), (None, value)) for name, value in _stretched(model).items()),
    )
    for name, value, fit in kinds:
        if value not in fit:
            raise InputError(
                f"{path}: {name} is {value!r}, but only {fit[-1]!r} can be run; use another"
                " checkpoint"
            )


def _rotary(config: dict[str, Any]) -> dict[str, Any]:
    """Return what a configuration says of rotary positions, by its older or newer name."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return found if isinstance(found, dict) else {"rope_type": found}


def _window(config: dict[str, Any]) -> int | None:
    """Return the window that a configuration has in use."""
    return config.get("sliding_window") if config.get("use_sliding_window", True) else None


def _stretched(model: Llama) -> dict[str, float]:
    """Return transformers' words of stretched positions; none where they are not."""
    s = model.rope_scaling
    if s is None:
        return {}
    return {
        "factor": s.factor,
        "low_freq_factor": s.low,
        "high_freq_factor": s.high,
        "original_max_position_embeddings": s.original_context,
    }


_HEADS = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}


def config_of(model: Llama, *, causal: bool) -> dict[str, Any]:
    """Return a model's configuration as transformers reads it."""
    head = "ForCausalLM" if causal else "ForSequenceClassification"
    rope_type = "default" if model.rope_scaling is None else "llama3"
    rotary = {"rope_type": rope_type, "rope_theta": model.rope_base, **_stretched(model)}
    found: dict[str, Any] = {
        "architectures": [f"{_HEADS[model.family]}{head}"],
        "model_type": model.family,
        "hidden_size": model.hidden,
        "intermediate_size": model.ffn,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.key_heads,
        "vocab_size": model.vocabulary,
        "rms_norm_eps": model.norm_epsilon,
        "rope_theta": model.rope_base,
        "rope_parameters": rotary,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "dtype": "float32",
    }
    if not causal:
        found["num_labels"] = 1
    if model.head_dim is not None or model.family in ("mistral", "qwen3"):
        found["head_dim"] = model.head_size
    if model.family == "mistral":
        found["sliding_window"] = model.window or None
    return found
