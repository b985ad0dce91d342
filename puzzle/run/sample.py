"""Draw tokens so that the draw depends on the seed, sequence and position alone, not on a layout.

The largest of logits plus Gumbel noise is a draw from their softmax (Gumbel 1954). The noise comes
from a hash of (seed, sequence, position, token), so any rank can make its own part of it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from puzzle.inputs.ppo import Sampling
from puzzle.run.layers import wide

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


def distribution(logits_NV: Tensor, sampling: Sampling) -> Tensor:
    """Return the logits whose softmax is drawn from, of whole logits: -inf where a cut left none.

    Divided by the temperature, then cut to the `top_k` likeliest tokens, then to the fewest of the
    likeliest whose probability among those reaches `top_p` (Holtzman et al. 2020).
    """
    logits = wide(logits_NV) / sampling.temperature
    if sampling.top_k:
        least = logits.topk(min(sampling.top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if 0 < sampling.top_p < 1:
        ordered, order = logits.sort(descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        dropped = torch.zeros_like(logits, dtype=torch.bool)
        dropped.scatter_(1, order, before >= sampling.top_p)
        logits = logits.masked_fill(dropped, -torch.inf)
    return logits


def pick(logits_NV: Tensor, seed: int, sequences_N: Tensor, positions_N: Tensor) -> Tensor:
    """Return one token per sequence, drawn from the softmax of these very logits."""
    noise = gumbel(seed, sequences_N, positions_N, logits_NV.shape[-1])
    return (logits_NV + noise).argmax(-1)


def draw(
    logits_NV: Tensor, sampling: Sampling, seed: int, sequences_N: Tensor, positions_N: Tensor
) -> Tensor:
    """Return one token per sequence from whole logits, as `sampling` says."""
    return pick(distribution(logits_NV, sampling), seed, sequences_N, positions_N)


def packed(chosen_NV: Tensor) -> Tensor:
    """Return true and false as bits, eight a byte, the first the lowest: N x ceil(V / 8) uint8."""
    rest = -chosen_NV.shape[-1] % 8
    bits = functional.pad(chosen_NV.to(torch.uint8), (0, rest)).unflatten(-1, (-1, 8))
    return (bits << torch.arange(8, dtype=torch.uint8, device=bits.device)).sum(-1).to(torch.uint8)


def unpacked(bits: Tensor, first: int, count: int) -> Tensor:
    """Return `count` of the packed truths, from number `first` on, along the last axis."""
    begin = first // 8
    some = bits[..., begin : -(-(first + count) // 8), None]
    each = (some >> torch.arange(8, dtype=torch.uint8, device=bits.device)) & 1
    return each.flatten(-2)[..., first - 8 * begin :][..., :count].bool()


class Drawn(NamedTuple):
    """The distribution that answers were drawn from: what is done to logits before the softmax."""

    temperature: float = 1.0
    kept: Tensor | None = None
    """N x A x ceil(V / 8): the tokens that each token of an answer was drawn from, packed; None
    where no cut is made."""

    def rows(self, rows: slice) -> Drawn:
        """Return the same of some sequences."""
        return self if self.kept is None else self._replace(kept=self.kept[rows])

    def shaped(self, logits_NTV: Tensor, first: int) -> Tensor:
        """Return logits of T next tokens, the last A of them the answers', as they were drawn from.

        V is a slice of the vocabulary that begins with token `first`.
        """
        logits = wide(logits_NTV)
        if self.temperature != 1.0:
            logits = logits / self.temperature
        if self.kept is None:
            return logits
        kept = unpacked(self.kept, first, logits.shape[-1])
        before = logits.shape[1] - kept.shape[1]
        return logits.masked_fill(functional.pad(~kept, (0, 0, before, 0)), -torch.inf)


PLAIN = Drawn()
"""The softmax of the logits as they are."""
