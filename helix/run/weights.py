"""A machine's part of the weights: read from safetensors by layer, or drawn."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import torch

from common.errors import InputError
from helix.run.decoder import LayerWeights, Mlp
from helix.run.decoder_config import DecoderConfig
from helix.run.experts import Experts

Read = Callable[[str], torch.Tensor]
Part = Callable[..., torch.Tensor]
PLAIN = (torch.float32, torch.float16, torch.bfloat16)
EXPERT_NAMES = {
    "mixtral": ("block_sparse_moe", "w1", "w3", "w2"),
    "qwen3_moe": ("mlp", "gate_proj", "up_proj", "down_proj"),
}
"""By family: where a layer's experts are, and their gate, up and down projections."""
PREFIXES = ("model.", "language_model.model.", "model.language_model.")
"""What a text model's tensors begin with, alone or inside a model that sees images, too."""


class Weights(NamedTuple):
    """Layers [first, end), and what comes before the first and after the last where held."""

    layers: tuple[LayerWeights, ...]
    embedding: torch.Tensor | None
    norm: torch.Tensor | None
    head: torch.Tensor | None


def load(
    config: DecoderConfig, first: int, end: int, folder: str, seed: int,
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
        if found.dtype not in PLAIN:
            raise InputError(
                f"{folder}: {name} is stored as {str(found.dtype).removeprefix('torch.')}, which is"
                " quantized; take the checkpoint in 16 or 32 bit"
            )
        return found.to(device=device, dtype=dtype)

    def norm(name: str, size: int) -> torch.Tensor:
        found = part(f"{name}.weight", size)
        return found.float() + config.norm_offset if config.norm_offset else found

    last, tied = end == config.layers, config.tied
    table = ("model.embed_tokens.weight", config.vocabulary, config.hidden_size)
    return Weights(
        layers=tuple(_layer(config, number, part, norm) for number in range(first, end)),
        embedding=part(*table) if first == 0 else None,
        norm=norm("model.norm", config.hidden_size) if last else None,
        head=part(*(table if tied else ("lm_head.weight", *table[1:]))) if last else None,
    )


def _layer(config: DecoderConfig, number: int, part: Part, norm: Part) -> LayerWeights:
    """Return one layer's weights, by the names that Hugging Face's folders have for them."""
    d, head, stem = config.hidden_size, config.head_size, f"model.layers.{number}"
    sizes = {"q": config.heads * head, "k": config.kv_heads * head, "v": config.kv_heads * head}
    attend = f"{stem}.self_attn"
    # Where what leaves attention is normed, too, `post_attention_layernorm` is that norm.
    outer = config.outer_norms
    before_mlp = "pre_feedforward_layernorm" if outer else "post_attention_layernorm"
    return LayerWeights(
        input_norm=norm(f"{stem}.input_layernorm", d),
        qkv=torch.cat([part(f"{attend}.{x}_proj.weight", n, d) for x, n in sizes.items()]),
        output=part(f"{attend}.o_proj.weight", d, sizes["q"]),
        mlp_norm=norm(f"{stem}.{before_mlp}", d),
        mlp=(_experts if config.has_experts(number) else _mlp)(config, stem, part),
        qkv_bias=torch.cat([part(f"{attend}.{x}_proj.bias", n) for x, n in sizes.items()])
        if config.attention_bias
        else None,
        output_bias=part(f"{attend}.o_proj.bias", d) if config.output_bias else None,
        query_norm=norm(f"{attend}.q_norm", head) if config.head_norms else None,
        key_norm=norm(f"{attend}.k_norm", head) if config.head_norms else None,
        attention_outer_norm=norm(f"{stem}.post_attention_layernorm", d) if outer else None,
        mlp_outer_norm=norm(f"{stem}.post_feedforward_layernorm", d) if outer else None,
    )


def _mlp(config: DecoderConfig, stem: str, part: Part) -> Mlp:
    d, wide, both = config.hidden_size, config.intermediate_size, ("gate_proj", "up_proj")
    has = config.mlp_bias
    return Mlp(
        gate_up=torch.cat([part(f"{stem}.mlp.{name}.weight", wide, d) for name in both]),
        down=part(f"{stem}.mlp.down_proj.weight", d, wide),
        gate_up_bias=torch.cat([part(f"{stem}.mlp.{n}.bias", wide) for n in both]) if has else None,
        down_bias=part(f"{stem}.mlp.down_proj.bias", d) if has else None,
    )


def _experts(config: DecoderConfig, stem: str, part: Part) -> Experts:
    d, wide = config.hidden_size, config.expert_width
    room, gate, up, down = EXPERT_NAMES[config.expert_names]

    def stacked(name: str, *shape: int) -> torch.Tensor:
        names = (f"{stem}.{room}.experts.{i}.{name}.weight" for i in range(config.experts))
        return torch.stack([part(one, *shape) for one in names])

    return Experts(
        router=part(f"{stem}.{room}.gate.weight", config.experts, d),
        gate_up=torch.cat([stacked(gate, wide, d), stacked(up, wide, d)], dim=1),
        down=stacked(down, d, wide),
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

    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    try:
        if index.exists():
            files = dict[str, str](json.loads(index.read_text())["weight_map"])
        else:
            with safe_open(single, framework="pt") as file:
                files = dict.fromkeys(file.keys(), single.name)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        which = index if index.exists() else single
        raise InputError(f"{which}: not safetensors that can be read: {error}") from error
    prefix = next((p for p in PREFIXES if f"{p}embed_tokens.weight" in files), PREFIXES[0])

    def read(name: str) -> torch.Tensor:
        there = prefix + name.removeprefix(PREFIXES[0]) if name.startswith(PREFIXES[0]) else name
        path = folder / files.get(there, single.name)
        try:
            with safe_open(path, framework="pt") as file:
                return file.get_tensor(there)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: no tensor {there}: {error}") from error

    return read
