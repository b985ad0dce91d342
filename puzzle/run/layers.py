"""LLaMA's layers on a slice of the tensors, with the collectives of tensor parallelism.

Shape suffixes: N sequences, T tokens, S cached tokens, H hidden, A local heads, K local heads of
keys and values, D head size, V local vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

Group = dist.ProcessGroup | None


class _Copy(torch.autograd.Function):
    """The same values to every slice; gradients are summed on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grad = grads[0].contiguous()
        dist.all_reduce(grad, group=ctx.group)
        return grad, None


class _Sum(torch.autograd.Function):
    """The sum over slices; gradients go back as they are."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        x = x.contiguous().clone()
        dist.all_reduce(x, group=group)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class _LogProbs(torch.autograd.Function):
    """Log-probabilities of targets from logits whose vocabulary is cut over the slices."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, first: int, group: dist.ProcessGroup
    ) -> Tensor:
        logits = logits.float()
        most = logits.amax(-1)
        dist.all_reduce(most, dist.ReduceOp.MAX, group=group)
        powers = (logits - most[..., None]).exp_()
        total = powers.sum(-1)
        dist.all_reduce(total, group=group)
        own = (targets >= first) & (targets < first + logits.shape[-1])
        local = (targets - first).clamp(0, logits.shape[-1] - 1)
        chosen = logits.gather(-1, local[..., None])[..., 0].where(own, torch.zeros_like(most))
        dist.all_reduce(chosen, group=group)
        ctx.save_for_backward(powers.div_(total[..., None]), local, own)
        return chosen - most - total.log()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        softmax, local, own = ctx.saved_tensors
        grad = softmax.mul(-grads[0][..., None])
        grad.scatter_add_(-1, local[..., None], (grads[0] * own)[..., None])
        return grad, None, None, None


def to_slices(x: Tensor, group: Group) -> Tensor:
    """Enter a column-parallel product."""
    return x if group is None else _Copy.apply(x, group)  # type: ignore[return-value]


def from_slices(x: Tensor, group: Group) -> Tensor:
    """Leave a row-parallel product."""
    return x if group is None else _Sum.apply(x, group)  # type: ignore[return-value]


def log_probs(logits: Tensor, targets: Tensor, first: int, group: Group) -> Tensor:
    """Return the targets' log-probabilities, float32; `first` is the slice's first token id."""
    if group is None:
        logits = logits.float()
        return logits.gather(-1, targets[..., None])[..., 0] - logits.logsumexp(-1)
    return _LogProbs.apply(logits, targets, first, group)  # type: ignore[return-value]


def embed(ids: Tensor, weight_VH: Tensor, first: int, group: Group) -> Tensor:
    """Look ids up in a slice of the embedding's rows and sum over slices."""
    if group is None:
        return functional.embedding(ids, weight_VH)
    own = (ids >= first) & (ids < first + len(weight_VH))
    found = functional.embedding((ids - first).clamp(0, len(weight_VH) - 1), weight_VH)
    return from_slices(found * own[..., None], group)


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Root-mean-square normalisation, its statistics in float32."""
    wide = x.float()
    wide = wide * (wide.square().mean(-1, keepdim=True) + epsilon).rsqrt()
    return weight * wide.to(x.dtype)


class Angles(NamedTuple):
    """Cosines and sines of rotary positions, N x 1 x T x D."""

    cos: Tensor
    sin: Tensor


def rotary_angles(positions_NT: Tensor, head_size: int, base: float, dtype: torch.dtype) -> Angles:
    """Return the angles of positions; both halves of a head turn alike, as Hugging Face has it."""
    even = torch.arange(0, head_size, 2, dtype=torch.float32, device=positions_NT.device)
    angles = positions_NT[..., None].float() / base ** (even / head_size)
    angles = torch.cat((angles, angles), -1)[:, None]
    return Angles(angles.cos().to(dtype), angles.sin().to(dtype))


def rotate(x_NATD: Tensor, angles: Angles) -> Tensor:
    """Turn queries or keys to their positions."""
    low, high = x_NATD.chunk(2, -1)
    return x_NATD * angles.cos + torch.cat((-high, low), -1) * angles.sin


class Cache:
    """Keys and values of one micro-batch on one stage, by layer; filled as tokens come."""

    def __init__(self, layers: range, shape: tuple[int, int, int, int], like: Tensor) -> None:
        self.keys = {layer: like.new_zeros(shape) for layer in layers}
        self.values = {layer: like.new_zeros(shape) for layer in layers}
        self.rows = slice(None)
        self.begin = 0

    def add(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store new tokens' keys and values and return all up to them."""
        end = self.begin + key.shape[2]
        self.keys[layer][self.rows, :, self.begin : end] = key
        self.values[layer][self.rows, :, self.begin : end] = value
        return self.keys[layer][self.rows, :, :end], self.values[layer][self.rows, :, :end]


def attention_mask(valid_NS: Tensor, tokens: int, dtype: torch.dtype) -> Tensor:
    """Return what the last `tokens` may not see as a large negative number, N x 1 x T x S.

    A token sees itself and real tokens before it. Padding sees itself, so that no row is empty.
    """
    length = valid_NS.shape[1]
    query = torch.arange(length - tokens, length, device=valid_NS.device)[:, None]
    key = torch.arange(length, device=valid_NS.device)[None]
    seen = (key <= query)[None] & valid_NS[:, None].bool() | (key == query)[None]
    blocked = torch.zeros(seen.shape, dtype=dtype, device=valid_NS.device)
    return blocked.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


def for_every_head(x_NKSD: Tensor, heads: int) -> Tensor:
    """Return keys or values once per query head: neighbouring heads share theirs."""
    shared = heads // x_NKSD.shape[1]
    return x_NKSD if shared == 1 else x_NKSD.repeat_interleave(shared, 1)


def attention(
    x_NTH: Tensor,
    weights: dict[str, Tensor],
    layer: int,
    head_size: int,
    angles: Angles,
    mask: Tensor,
    cache: Cache | None,
    group: Group,
) -> Tensor:
    """Self-attention over this slice's heads, summed over slices."""
    prefix = f"model.layers.{layer}.self_attn"
    x_NTH = to_slices(x_NTH, group)
    n, t, _ = x_NTH.shape
    q, k, v = (
        functional.linear(x_NTH, weights[f"{prefix}.{name}_proj.weight"])
        .view(n, t, -1, head_size)
        .transpose(1, 2)
        for name in "qkv"
    )
    q, k = rotate(q, angles), rotate(k, angles)
    if cache is not None:
        k, v = cache.add(layer, k, v)
    k, v = (for_every_head(x, q.shape[1]) for x in (k, v))
    mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    mixed = mixed.transpose(1, 2).reshape(n, t, -1)
    return from_slices(functional.linear(mixed, weights[f"{prefix}.o_proj.weight"]), group)


def feed_forward(x_NTH: Tensor, weights: dict[str, Tensor], layer: int, group: Group) -> Tensor:
    """SwiGLU: silu(gate) * up, then down, over this slice's columns, summed over slices."""
    prefix = f"model.layers.{layer}.mlp"
    x_NTH = to_slices(x_NTH, group)
    gate, up = (
        functional.linear(x_NTH, weights[f"{prefix}.{name}_proj.weight"]) for name in ("gate", "up")
    )
    wide = functional.silu(gate) * up
    return from_slices(functional.linear(wide, weights[f"{prefix}.down_proj.weight"]), group)
