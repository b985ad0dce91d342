"""LLaMA's layers on a slice of the tensors, with the collectives of tensor parallelism.

Shape suffixes: N sequences, T tokens, S cached tokens, H hidden, A local heads, K local heads of
keys and values, D head size, V local vocabulary.
"""

from __future__ import annotations

from math import pi
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from puzzle.inputs.model import Llama

Group = dist.ProcessGroup | None


def wide(x: Tensor) -> Tensor:
    """Return values in the precision of sums and logarithms: float32, or float64 as they are."""
    return x if x.dtype == torch.float64 else x.float()


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


def _softmax_parts(logits: Tensor, group: dist.ProcessGroup) -> tuple[Tensor, Tensor, Tensor]:
    """Return the largest logit m, exp(logit - m), and its sum over the whole vocabulary."""
    most = logits.amax(-1)
    dist.all_reduce(most, dist.ReduceOp.MAX, group=group)
    powers = (logits - most[..., None]).exp_()
    total = powers.sum(-1)
    dist.all_reduce(total, group=group)
    return most, powers, total


class _LogProbs(torch.autograd.Function):
    """Log-probabilities of targets from logits whose vocabulary is cut over the slices."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, first: int, group: dist.ProcessGroup
    ) -> Tensor:
        logits = wide(logits)
        most, powers, total = _softmax_parts(logits, group)
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


class _Entropy(torch.autograd.Function):
    """Entropy of the softmax of logits whose vocabulary is cut over the slices.

    H = log Z - sum p l, so that dH / dl = -p (log p + H); a logit of -inf has p = 0 and no part.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, group: dist.ProcessGroup) -> Tensor:
        logits = wide(logits)
        most, powers, total = _softmax_parts(logits, group)
        softmax = powers.div_(total[..., None])
        logs = logits - (most + total.log())[..., None]
        logs = logs.masked_fill(softmax == 0, 0.0)
        entropy = -(softmax * logs).sum(-1)
        dist.all_reduce(entropy, group=group)
        ctx.save_for_backward(softmax, logs, entropy)
        return entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        softmax, logs, entropy = ctx.saved_tensors
        return softmax * (logs + entropy[..., None]) * -grads[0][..., None], None


def to_slices(x: Tensor, group: Group) -> Tensor:
    """Enter a column-parallel product."""
    return x if group is None else _Copy.apply(x, group)  # type: ignore[return-value]


def from_slices(x: Tensor, group: Group) -> Tensor:
    """Leave a row-parallel product."""
    return x if group is None else _Sum.apply(x, group)  # type: ignore[return-value]


def log_probs(logits: Tensor, targets: Tensor, first: int, group: Group) -> Tensor:
    """Return the targets' log-probabilities, wide; `first` is the slice's first token id."""
    if group is None:
        logits = wide(logits)
        return logits.gather(-1, targets[..., None])[..., 0] - logits.logsumexp(-1)
    return _LogProbs.apply(logits, targets, first, group)  # type: ignore[return-value]


def entropies(logits: Tensor, group: Group) -> Tensor:
    """Return the entropy of the softmax over the whole vocabulary, nats, wide."""
    if group is None:
        logs = wide(logits).log_softmax(-1)
        return -(logs.exp() * logs.masked_fill(logs.isneginf(), 0.0)).sum(-1)
    return _Entropy.apply(logits, group)  # type: ignore[return-value]


def embed(ids: Tensor, weight_VH: Tensor, first: int, group: Group) -> Tensor:
    """Look ids up in a slice of the embedding's rows and sum over slices."""
    if group is None:
        return functional.embedding(ids, weight_VH)
    own = (ids >= first) & (ids < first + len(weight_VH))
    found = functional.embedding((ids - first).clamp(0, len(weight_VH) - 1), weight_VH)
    return from_slices(found * own[..., None], group)


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Root-mean-square normalisation, its statistics in float32 at least."""
    y = wide(x)
    y = y * (y.square().mean(-1, keepdim=True) + epsilon).rsqrt()
    return weight * y.to(x.dtype)


class Angles(NamedTuple):
    """Cosines and sines of rotary positions, N x 1 x T x D."""

    cos: Tensor
    sin: Tensor


def frequencies(model: Llama, device: torch.device) -> Tensor:
    """Return the angle per position of each pair of a head's elements, D / 2, float32.

    With `rope_scaling` as Llama 3.1 (transformers' `llama3`): waves longer than original_context /
    low turn `factor` times slower, those shorter than original_context / high as before, and
    between both by linear interpolation over original_context / wavelength.
    """
    even = torch.arange(0, model.head_size, 2, dtype=torch.float32, device=device)
    plain = 1.0 / model.rope_base ** (even / model.head_size)
    s = model.rope_scaling
    if s is None:
        return plain
    turns = s.original_context * plain / (2 * pi)
    kept = ((turns - s.low) / (s.high - s.low)).clamp(0, 1)
    return plain * (kept + (1 - kept) / s.factor)


def rotary_angles(positions_NT: Tensor, model: Llama, dtype: torch.dtype) -> Angles:
    """Return the angles of positions; both halves of a head turn alike, as Hugging Face has it."""
    angles = positions_NT[..., None].float() * frequencies(model, positions_NT.device)
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
    model: Llama,
    angles: Angles,
    mask: Tensor,
    cache: Cache | None,
    group: Group,
) -> Tensor:
    """Self-attention over this slice's heads, summed over slices."""
    prefix = f"model.layers.{layer}.self_attn"
    x_NTH = to_slices(x_NTH, group)
    n, t, _ = x_NTH.shape
    found: list[Tensor] = []
    for name in "qkv":
        bias = weights.get(f"{prefix}.{name}_proj.bias")
        y = functional.linear(x_NTH, weights[f"{prefix}.{name}_proj.weight"], bias)
        y = y.view(n, t, -1, model.head_size)
        scale = weights.get(f"{prefix}.{name}_norm.weight")
        if scale is not None:  # of every head, on this slice for its own: gradients are summed
            y = rms_norm(y, to_slices(scale, group), model.norm_epsilon)
        found.append(y.transpose(1, 2))
    q, k, v = found
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
