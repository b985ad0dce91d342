"""LLaMA's arithmetic in plain torch, for any run of its layers.

Shapes: T tokens of all requests in a batch, D hidden size, N heads, K heads of keys and values,
H values of a head, R requests, S slots of the longest context, V vocabulary. Prompts attend within
themselves; decodes (one token of each request) attend over what the KV pool holds of them.
"""

from typing import NamedTuple

import torch
from torch.nn.functional import embedding, linear, scaled_dot_product_attention, silu

from helix.run.kv_pool import KvPool
from helix.run.llama_config import LlamaConfig


class LayerWeights(NamedTuple):
    """One decoder layer; projections that read the same input are stacked."""

    input_norm: torch.Tensor
    qkv: torch.Tensor
    output: torch.Tensor
    mlp_norm: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


class Layout(NamedTuple):
    """Which tokens of a batch are whose: prompts first, then one token of each decode."""

    prompts: tuple[int, ...]
    """Tokens of each prompt."""
    rows: torch.Tensor
    """By token: the request's row in the pool (on the CPU, where the block tables are)."""
    positions: torch.Tensor
    """By token: its position in its request (on the CPU)."""
    cos: torch.Tensor
    sin: torch.Tensor
    mask: torch.Tensor | None
    """[R, S], by decode: which slots are its own context."""
    longest: int
    """Most tokens of context of a decode, its own included."""


def layout(
    config: LlamaConfig, prompts: list[int], rows: list[int], begins: list[int],
    device: torch.device, dtype: torch.dtype,
) -> Layout:  # fmt: skip
    """Return the layout of a batch; `rows` and `begins` are by request, prompts first."""
    counts = torch.tensor([*prompts, *[1] * (len(rows) - len(prompts))])
    row_T = torch.repeat_interleave(torch.tensor(rows), counts)
    first = torch.repeat_interleave(torch.cumsum(counts, 0) - counts, counts)
    position_T = torch.arange(len(row_T)) - first
    position_T += torch.repeat_interleave(torch.tensor(begins), counts)
    cos_TH, sin_TH = rotation(config, position_T.to(device))
    contexts = torch.tensor(begins[len(prompts) :]) + 1
    longest = int(contexts.max()) if len(contexts) else 0
    slots = -(-longest // 16) * 16
    mask = torch.arange(slots)[None] < contexts[:, None] if longest else None
    return Layout(
        prompts=tuple(prompts),
        rows=row_T,
        positions=position_T,
        cos=cos_TH.to(dtype),
        sin=sin_TH.to(dtype),
        mask=None if mask is None else mask.to(device),
        longest=longest,
    )


def rotation(config: LlamaConfig, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines [T, H] of every position's angles."""
    frequencies = torch.tensor(config.frequencies(), device=positions.device)
    angles = positions.float()[:, None] * frequencies[None]
    both = torch.cat((angles, angles), dim=-1)
    return both.cos(), both.sin()


def rotated(x_TNH: torch.Tensor, cos_TH: torch.Tensor, sin_TH: torch.Tensor) -> torch.Tensor:
    """Return heads turned by their positions; the two halves of a head are the pairs."""
    left, right = x_TNH.chunk(2, dim=-1)
    turned = torch.cat((-right, left), dim=-1)
    return x_TNH * cos_TH[:, None] + turned * sin_TH[:, None]


def rms_norm(x_TD: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Return the root-mean-square norm, computed in 32 bits whatever the type."""
    wide = x_TD.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight * wide.to(x_TD.dtype)


def decoder_layer(
    x_TD: torch.Tensor, weights: LayerWeights, config: LlamaConfig,
    pool: KvPool, layer: int, batch: Layout,
) -> torch.Tensor:  # fmt: skip
    """Return the activations after a layer, and put its keys and values into the pool.

    `layer` counts from the pool's first. The residual stream goes along: what leaves the layer is
    all that the next one needs.
    """
    tokens, head = len(x_TD), config.head_size
    normed = rms_norm(x_TD, weights.input_norm, config.eps)
    sizes = [config.heads * head, config.kv_heads * head, config.kv_heads * head]
    query, key, value = linear(normed, weights.qkv).split(sizes, dim=-1)
    query_TNH = rotated(query.view(tokens, -1, head), batch.cos, batch.sin)
    key_TKH = rotated(key.view(tokens, -1, head), batch.cos, batch.sin)
    value_TKH = value.view(tokens, -1, head)
    pool.write(layer, batch.rows, batch.positions, key_TKH, value_TKH)
    mixed = attention(query_TNH, key_TKH, value_TKH, pool, layer, batch)
    x_TD = x_TD + linear(mixed, weights.output)
    normed = rms_norm(x_TD, weights.mlp_norm, config.eps)
    gate, up = linear(normed, weights.gate_up).chunk(2, dim=-1)
    return x_TD + linear(silu(gate) * up, weights.down)


def attention(
    query_TNH: torch.Tensor, key_TKH: torch.Tensor, value_TKH: torch.Tensor,
    pool: KvPool, layer: int, batch: Layout,
) -> torch.Tensor:  # fmt: skip
    """Return the attention's output [T, N * H], prompts and decodes of one batch alike."""
    parts, begin = list[torch.Tensor](), 0
    for count in batch.prompts:
        own = slice(begin, begin + count)
        q, k, v = (x[own].transpose(0, 1)[None] for x in (query_TNH, key_TKH, value_TKH))
        mixed = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        parts.append(mixed[0].transpose(0, 1).flatten(1))
        begin += count
    if batch.mask is not None:
        keys, values = pool.read(layer, batch.rows[begin:], batch.longest)
        mixed = scaled_dot_product_attention(
            query_TNH[begin:, :, None],
            keys.transpose(1, 2),
            values.transpose(1, 2),
            attn_mask=batch.mask[:, None, None],
            enable_gqa=True,
        )
        parts.append(mixed.flatten(1))
    return torch.cat(parts)


def embed(ids: list[int], table_VD: torch.Tensor) -> torch.Tensor:
    """Return the activations of token ids."""
    return embedding(torch.tensor(ids, device=table_VD.device), table_VD)


def logits(
    x_RD: torch.Tensor, norm: torch.Tensor, head_VD: torch.Tensor, eps: float
) -> torch.Tensor:
    """Return the scores [R, V] of the next token."""
    return linear(rms_norm(x_RD, norm, eps), head_VD)
