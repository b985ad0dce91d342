"""Draw tokens so that the draw depends on the seed, sequence and position alone, not on a layout.

The largest of logits plus Gumbel noise is a draw from their softmax (Gumbel 1954). The noise comes
from a hash of (seed, sequence, position, token), so any rank can make its own part of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from puzzle.inputs.ppo import Sampling

_STEP, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shift right as if without sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mixed(x: Tensor) -> Tensor:
    """Scramble 64-bit integers (the finaliser of splitmix64, Steele et al. 2014)."""
    x = (x ^ _shift(x, 30)) * _signed(_MIX_1)
    x = (x ^ _shift(x, 27)) * _signed(_MIX_2)
    return x ^ _shift(x, 31)


def gumbel(seed: int, sequences_N: Tensor, positions_N: Tensor, vocabulary: int) -> Tensor:
    """Return Gumbel noise N x V, float32."""
    tokens = torch.arange(vocabulary, device=sequences_N.device)
    key = torch.full_like(sequences_N, _signed(seed * _STEP % (1 << 64)))
    for part in (sequences_N, positions_N):
        key = _mixed(key + part * _signed(_STEP))
    bits = _mixed(key[:, None] + (tokens[None] + 1) * _signed(_STEP))
    uniform = (_shift(bits, 11).double() + 0.5) / 2.0**53
    return (-(-uniform.log()).log()).float()


def draw(
    logits_NV: Tensor, sampling: Sampling, seed: int, sequences_N: Tensor, positions_N: Tensor
) -> Tensor:
    """Return one token per sequence from whole logits."""
    logits = logits_NV.float() / sampling.temperature
    if sampling.top_k:
        least = logits.topk(min(sampling.top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p:
        ordered, order = logits.sort(descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        dropped = torch.zeros_like(logits, dtype=torch.bool)
        dropped.scatter_(1, order, before >= sampling.top_p)
        logits = logits.masked_fill(dropped, -torch.inf)
    noise = gumbel(seed, sequences_N, positions_N, logits.shape[-1])
    return (logits + noise).argmax(-1)
