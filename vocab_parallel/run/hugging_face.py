"""Weights of Hugging Face's safetensors by our names, every rank taking its part.

The llama family's names serve llama, mistral, qwen and gemma; GPT-2 has its own, and its matrices
lie the other way round.
"""

import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from common.errors import InputError
from vocab_parallel.inputs.model import Model
from vocab_parallel.run.tensor import Cut, own_part
from vocab_parallel.run.weights import EMBEDDING, OUTPUT, POSITION, Store, Weight

Read = Callable[[str], Tensor]

_TOP = {EMBEDDING: "model.embed_tokens", OUTPUT: "lm_head", "norm_": "model.norm"}
_LAYER = {
    "": "input_layernorm",
    "mlp_": "post_attention_layernorm",
    "query": "self_attn.q_proj",
    "merge": "self_attn.o_proj",
    "query_scale": "self_attn.q_norm",
    "key_scale": "self_attn.k_norm",
    "up": "mlp.up_proj",
    "gate": "mlp.gate_proj",
    "down": "mlp.down_proj",
}
_FOUR_NORMS = {
    "attended_": "post_attention_layernorm",
    "mlp_": "pre_feedforward_layernorm",
    "made_": "post_feedforward_layernorm",
}
_GPT2 = {
    EMBEDDING: "wte",
    POSITION: "wpe",
    "norm_": "ln_f",
    "": "ln_1",
    "mlp_": "ln_2",
    "qkv": "attn.c_attn",
    "merge": "attn.c_proj",
    "up": "mlp.c_fc",
    "down": "mlp.c_proj",
}


def start_from(folder: Path, model: Model, store: Store) -> None:
    """Take a rank's weights from the safetensors of a folder.

    Raises:
        InputError: there are none, or not those of the model.
    """
    where = _places(folder)
    read = _reader(where)
    for name, weight in store.weights.items():
        try:
            whole = whole_weight(name, model, read)
        except KeyError as error:
            raise InputError(f"training.weights: {folder} has no {error.args[0]}") from error
        part = _own(whole, weight)
        if part.shape != _shape(weight):
            raise InputError(
                f"training.weights: {folder} has {tuple(part.shape)} for {name}, the model"
                f" {tuple(_shape(weight))}; name weights of the same config"
            )
        main = store.main[name]
        main[: len(part)] = part.to(main)
    store.refresh()


def whole_weight(name: str, model: Model, read: Read) -> Tensor:
    """Return a weight of ours, whole, from what `read` gives by Hugging Face's names."""
    found = re.fullmatch(r"layer(\d+)\.(.*)", name)
    number, rest = (found[1], found[2]) if found else ("", name)
    if model.positions == "learned":
        return _of_gpt2(number, rest, read)
    if rest in (EMBEDDING, OUTPUT):
        return read(f"{_TOP[rest]}.weight")
    bare, kind = (rest[:-5], "bias") if rest.endswith("_bias") else (rest, "weight")
    if bare.endswith("scale") and bare not in _LAYER:
        bare = bare.removesuffix("scale")
    if not number:
        return read(f"{_TOP[bare]}.{kind}")
    at = f"model.layers.{number}."
    if bare in ("qkv", "kv"):
        return torch.cat([read(f"{at}self_attn.{part}_proj.{kind}") for part in bare])
    names = _LAYER | (_FOUR_NORMS if model.norms == 4 else {})
    return read(f"{at}{names[bare]}.{kind}")


def _of_gpt2(number: str, rest: str, read: Read) -> Tensor:
    kind = "bias" if rest.endswith(("_bias", "shift")) else "weight"
    bare = re.sub(r"(_bias|scale|shift)$", "", rest)
    at = f"transformer.h.{number}." if number else "transformer."
    if rest == OUTPUT:
        return read("lm_head.weight")
    value = read(f"{at}{_GPT2[bare]}.{kind}")
    matrix = number and kind == "weight" and value.dim() == 2
    return value.T if matrix else value


def _own(whole: Tensor, weight: Weight) -> Tensor:
    """Return a rank's rows of a vocabulary matrix without padding, or its part of another."""
    if weight.real >= 0:
        return whole[weight.first : weight.first + weight.real]
    return own_part(whole, weight.cut or Cut(0))


def _shape(weight: Weight) -> torch.Size:
    rows = weight.shape[0] if weight.real < 0 else weight.real
    return torch.Size((rows, *weight.shape[1:]))


def _places(folder: Path) -> Mapping[str, Path]:
    """Return which file of a folder has each tensor."""
    if find_spec("safetensors") is None:
        raise InputError("training.weights needs the package safetensors; install it")
    from safetensors import SafetensorError, safe_open

    where: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                where |= dict.fromkeys(file.keys(), path)
        except (SafetensorError, OSError) as error:
            raise InputError(f"training.weights: {path} is damaged ({error})") from error
    if not where:
        raise InputError(f"training.weights: {folder} has no *.safetensors; name such a folder")
    return where


def _reader(where: Mapping[str, Path]) -> Read:
    from safetensors import safe_open

    def read(name: str) -> Tensor:
        short = name.removeprefix("transformer.").removeprefix("model.")
        found = next((n for n in (name, short, f"language_model.{name}") if n in where), name)
        with safe_open(where[found], "pt") as file:
            return file.get_tensor(found)

    return read
