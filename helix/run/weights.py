"""A machine's part of the weights: read from safetensors by layer, or drawn."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import torch

from common.errors import InputError
from helix.run.llama import LayerWeights
from helix.run.llama_config import LlamaConfig

Read = Callable[[str], torch.Tensor]


class Weights(NamedTuple):
    """Layers [first, end), and what comes before the first and after the last where held."""

    layers: tuple[LayerWeights, ...]
    embedding: torch.Tensor | None
    norm: torch.Tensor | None
    head: torch.Tensor | None


def load(
    config: LlamaConfig, first: int, end: int, folder: str, seed: int,
    device: torch.device, dtype: torch.dtype,
) -> Weights:  # fmt: skip
    """Return a run of layers of the folder's model, or of a random one where folder is empty.

    Raises:
        InputError: the folder has no such tensors, or of another shape.
    """
    read = _reader(Path(folder)) if folder else None

    def part(name: str, *shape: int) -> torch.Tensor:
        found = read(name) if read else _drawn(name, shape, seed)
        if tuple(found.shape) != shape:
            raise InputError(
                f"{folder}: {name} is {tuple(found.shape)}, but config.json means {shape}"
            )
        return found.to(device=device, dtype=dtype)

    def layer(number: int) -> LayerWeights:
        d, wide = config.hidden_size, config.intermediate_size
        query, kv = config.heads * config.head_size, config.kv_heads * config.head_size
        stem = f"model.layers.{number}"

        def one(name: str, *shape: int) -> torch.Tensor:
            return part(f"{stem}.{name}.weight", *shape)

        return LayerWeights(
            input_norm=one("input_layernorm", d),
            qkv=torch.cat(
                [
                    one("self_attn.q_proj", query, d),
                    one("self_attn.k_proj", kv, d),
                    one("self_attn.v_proj", kv, d),
                ]
            ),
            output=one("self_attn.o_proj", d, query),
            mlp_norm=one("post_attention_layernorm", d),
            gate_up=torch.cat([one("mlp.gate_proj", wide, d), one("mlp.up_proj", wide, d)]),
            down=one("mlp.down_proj", d, wide),
        )

    table = ("model.embed_tokens.weight", config.vocabulary, config.hidden_size)
    head = table if config.tied else ("lm_head.weight", *table[1:])
    last = end == config.layers
    return Weights(
        layers=tuple(layer(number) for number in range(first, end)),
        embedding=part(*table) if first == 0 else None,
        norm=part("model.norm.weight", config.hidden_size) if last else None,
        head=part(*head) if last else None,
    )


def _drawn(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Return random weights that depend on seed and name only, not on who holds the layer."""
    if len(shape) == 1:
        return torch.ones(shape)
    digest = sha256(f"{seed} {name}".encode()).digest()
    draw = torch.Generator().manual_seed(int.from_bytes(digest[:4]))
    return torch.randn(shape, generator=draw) * shape[1] ** -0.5  # keeps the size of what passes


def _reader(folder: Path) -> Read:
    """Return what reads one tensor, touching only the file that it is in."""
    from safetensors import SafetensorError, safe_open

    index = folder / "model.safetensors.index.json"
    try:
        files = (
            dict[str, str](json.loads(index.read_text())["weight_map"]) if index.exists() else {}
        )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{index}: not an index of safetensors: {error}") from error

    def read(name: str) -> torch.Tensor:
        path = folder / files.get(name, "model.safetensors")
        try:
            with safe_open(path, framework="pt") as file:
                return file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: no tensor {name}: {error}") from error

    return read
