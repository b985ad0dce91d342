"""A decoder's arithmetic in plain torch, for any run of its layers: LLaMA and its kin.

Shapes: T tokens of all requests in a batch, D hidden size, N heads, K heads of keys and values,
H values of a head, R requests, S slots of the longest context, V vocabulary. Prompts attend within
themselves; decodes (one token of each request) attend over what the KV pool holds of them.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch.nn.functional import embedding, gelu, linear, scaled_dot_product_attention, silu, softmax

from helix.run.decoder_config import DecoderConfig
from helix.run.experts import Experts, mixture
from helix.run.kv_pool import KvPool

ACTIVATIONS = {"silu": silu, "gelu": partial(gelu, approximate="tanh")}


class Mlp(NamedTuple):
    """A gated MLP; projections that read the same input are stacked."""

    gate_up: torch.Tensor
    down: torch.Tensor
    gate_up_bias: torch.Tensor | None = None
    down_bias: torch.Tensor | None = None


class LayerWeights(NamedTuple):
    """One decoder layer; projections that read the same input are stacked."""

    input_norm: torch.Tensor
    qkv: torch.Tensor
    output: torch.Tensor
    mlp_norm: torch.Tensor
    mlp: Mlp | Experts
    qkv_bias: torch.Tensor | None = None
    output_bias: torch.Tensor | None = None
    query_norm: torch.Tensor | None = None
    key_norm: torch.Tensor | None = None
    attention_outer_norm: torch.Tensor | None = None
    mlp_outer_norm: torch.Tensor | None = None


class Layout(NamedTuple):
    """Which tokens of a batch are whose: prompts first, then one token of each decode."""

    prompts: tuple[int, ...]
    """Tokens of each prompt."""
    rows: torch.Tensor
    """By token: the request's row in the pool (on the CPU, where the block tables are)."""
    positions: torch.Tensor
    """By token: its position in its request (on the CPU)."""
    turns: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    """By the config's `ropes`: cosines and sines [T, H]."""
    masks: dict[int, torch.Tensor]
    """By window: [R, S], by decode, which slots it sees; empty without decodes."""
    longest: int
    """Most tokens of context of a decode, its own included."""


def layout(
    config: DecoderConfig, prompts: list[int], rows: list[int], begins: list[int],
    device: torch.device, dtype: torch.dtype,
) -> Layout:  # fmt: skip
    """Return the layout of a batch; `rows` and `begins` are by request, prompts first."""
    counts = torch.tensor([*prompts, *[1] * (len(rows) - len(prompts))])
    row_T = torch.repeat_interleave(torch.tensor(rows), counts)
    first = torch.repeat_interleave(torch.cumsum(counts, 0) - counts, counts)
    position_T = torch.arange(len(row_T)) - first
    position_T += torch.repeat_interleave(torch.tensor(begins), counts)
    contexts = torch.tensor(begins[len(prompts) :])[:, None] + 1
    longest = int(contexts.max()) if len(contexts) else 0
    slots, masks = torch.arange(-(-longest // 16) * 16)[None], dict[int, torch.Tensor]()
    for window in {0, *config.windows} if longest else ():
        seen = (slots < contexts) & (slots >= contexts - (window or longest))
        masks[window] = seen.to(device)
    return Layout(
        prompts=tuple(prompts),
        rows=row_T,
        positions=position_T,
        turns=rotations(config, position_T.to(device), dtype),
        masks=masks,
        longest=longest,
    )


def rotations(
    config: DecoderConfig, positions: torch.Tensor, dtype: torch.dtype
) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    """Return cosines and sines [T, H] of every position's angles, for each of the `ropes`."""
    found = list[tuple[torch.Tensor, torch.Tensor]]()
    for rope in config.ropes:
        frequencies = torch.tensor(rope.frequencies(config.head_size), device=positions.device)
        angles = positions.float()[:, None] * frequencies[None]
        both = torch.cat((angles, angles), dim=-1)
        found.append(((both.cos() * rope.scale).to(dtype), (both.sin() * rope.scale).to(dtype)))
    return tuple(found)


def rotated(x_TNH: torch.Tensor, cos_TH: torch.Tensor, sin_TH: torch.Tensor) -> torch.Tensor:
    """Return heads turned by their positions; the two halves of a head are the pairs."""
    left, right = x_TNH.chunk(2, dim=-1)
    turned = torch.cat((-right, left), dim=-1)
    return x_TNH * cos_TH[:, None] + turned * sin_TH[:, None]


def rms_norm(x: torch.Tensor, weight: torch.Tensor | None, eps: float) -> torch.Tensor:
    """Return the root-mean-square norm of the last axis, in 32 bits whatever the type.

    Weights in 32 bits multiply before the result is rounded to its type, others after. None: as is.
    """
    if weight is None:
        return x
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return (weight * wide.to(weight.dtype)).to(x.dtype)


def decoder_layer(
    x_TD: torch.Tensor, weights: LayerWeights, config: DecoderConfig,
    pool: KvPool, layer: int, first: int, batch: Layout,
) -> torch.Tensor:  # fmt: skip
    """Return the activations after a layer, and put its keys and values into the pool.

    `layer` is numbered as in the model, the pool's from `first` on. The residual stream goes along:
    what leaves the layer is all that the next one needs.
    """
    normed = rms_norm(x_TD, weights.input_norm, config.eps)
    mixed = attention(normed, weights, config, pool, layer, first, batch)
    mixed = linear(mixed, weights.output, weights.output_bias)
    x_TD = x_TD + rms_norm(mixed, weights.attention_outer_norm, config.eps)
    normed = rms_norm(x_TD, weights.mlp_norm, config.eps)
    activation, mlp = ACTIVATIONS[config.activation], weights.mlp
    if isinstance(mlp, Experts):
        found = mixture(normed, mlp, config.active_experts, config.renormed, activation)
    else:
        gate, up = linear(normed, mlp.gate_up, mlp.gate_up_bias).chunk(2, dim=-1)
        found = linear(activation(gate) * up, mlp.down, mlp.down_bias)
    return x_TD + rms_norm(found, weights.mlp_outer_norm, config.eps)


def attention(
    normed_TD: torch.Tensor, weights: LayerWeights, config: DecoderConfig,
    pool: KvPool, layer: int, first: int, batch: Layout,
) -> torch.Tensor:  # fmt: skip
    """Return the heads' outputs [T, N * H], prompts and decodes of one batch alike."""
    tokens, head, window = len(normed_TD), config.head_size, config.window(layer)
    sizes = [config.heads * head, config.kv_heads * head, config.kv_heads * head]
    parts = linear(normed_TD, weights.qkv, weights.qkv_bias).split(sizes, dim=-1)
    query, key, value_TKH = (part.view(tokens, -1, head) for part in parts)
    turn = batch.turns[config.rope(layer)]
    query_TNH = rotated(rms_norm(query, weights.query_norm, config.eps), *turn)
    key_TKH = rotated(rms_norm(key, weights.key_norm, config.eps), *turn)
    pool.write(layer - first, batch.rows, batch.positions, key_TKH, value_TKH)
    found, begin = list[torch.Tensor](), 0
    for count in batch.prompts:
        own = slice(begin, begin + count)
        q, k, v = (x[own].transpose(0, 1)[None] for x in (query_TNH, key_TKH, value_TKH))
        mixed = attended(q, k, v, _causal(count, window, config, q.device), config)
        found.append(mixed[0].transpose(0, 1).flatten(1))
        begin += count
    if batch.masks:
        keys, values = pool.read(layer - first, batch.rows[begin:], batch.longest)
        seen, query = batch.masks[window][:, None, None], query_TNH[begin:, :, None]
        mixed = attended(query, keys.transpose(1, 2), values.transpose(1, 2), seen, config)
        found.append(mixed.flatten(1))
    return torch.cat(found)


def _causal(
    count: int, window: int, config: DecoderConfig, device: torch.device
) -> torch.Tensor | None:
    """Return which of a prompt's tokens each sees [1, 1, T, T]; None where it is all before it."""
    if not config.attention_softcap and not 0 < window < count:
        return None
    seen = torch.ones(count, count, dtype=torch.bool, device=device).tril()
    return (seen.triu(1 - window) if window else seen)[None, None]


def attended(
    q_RNTH: torch.Tensor, k_RKSH: torch.Tensor, v_RKSH: torch.Tensor, seen: torch.Tensor | None,
    config: DecoderConfig,
) -> torch.Tensor:  # fmt: skip
    """Return what queries make of the values they see [R, N, T, H]; None: all before them."""
    scale = config.score_scale or config.head_size**-0.5
    if not config.attention_softcap or seen is None:
        return scaled_dot_product_attention(
            q_RNTH, k_RKSH, v_RKSH, attn_mask=seen, is_causal=seen is None, scale=scale,
            enable_gqa=True,
        )  # fmt: skip
    group = config.heads // config.kv_heads
    k, v = k_RKSH.repeat_interleave(group, 1), v_RKSH.repeat_interleave(group, 1)
    scores = capped(q_RNTH @ k.transpose(-1, -2) * scale, config.attention_softcap)
    scores = scores.masked_fill(~seen, float("-inf"))
    return softmax(scores, dim=-1, dtype=torch.float32).to(v.dtype) @ v


def capped(x: torch.Tensor, cap: float) -> torch.Tensor:
    """Return numbers drawn softly to within plus or minus `cap`; 0: as they are."""
    return cap * torch.tanh(x / cap) if cap else x


def embed(ids: list[int], table_VD: torch.Tensor, scale: float) -> torch.Tensor:
    """Return the activations of token ids, their scale rounded to the table's type."""
    found = embedding(torch.tensor(ids, device=table_VD.device), table_VD)
    return found if scale == 1.0 else found * torch.tensor(scale, dtype=table_VD.dtype)


def logits(
    x_RD: torch.Tensor, norm: torch.Tensor, head_VD: torch.Tensor, config: DecoderConfig
) -> torch.Tensor:
    """Return the scores [R, V] of the next token."""
    return capped(linear(rms_norm(x_RD, norm, config.eps), head_VD), config.logit_softcap)
