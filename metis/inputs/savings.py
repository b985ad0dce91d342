"""What recomputation and a sharded optimizer save, and the time that recomputation takes.

Recomputation (Korthikanti et al., arXiv 2205.05198, section 5): a block keeps less of its forward
pass and does that part again before its backward pass. "full" keeps a block's input and does the
whole forward pass again. "selective" does its MLP again and keeps the rest: their choice, the
scores of attention, are not kept by today's attention in any case (Dao et al., arXiv 2205.14135).
Of the embedding and the output head nothing is done again.

A sharded optimizer (ZeRO stage 1: Rajbhandari et al., arXiv 1910.02054, section 5) gives each of
the dp replicas 1 / dp of the states and of the update; a reduce-scatter of gradients and an
all-gather of weights move what the all-reduce of gradients does.
"""

from functools import cache
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from common.architecture import Architecture
from metis.inputs.model import Model

Recompute = Literal["none", "selective", "full"]

RECOMPUTES: tuple[Recompute, ...] = ("none", "selective", "full")
"""In ascending order of time, and descending of memory."""

FORWARD_SHARE = 1 / 3
"""Share of the forward pass in forward + backward where they are not told apart: the backward pass
multiplies each weight twice (for the input's and for the weight's gradient), so 1 : 2."""

ADAMS_SHARE = 1 / 2
"""Least share of the states in what a parameter takes: two moments beside weight and gradient. It
is 2 / 3 with a float32 copy of weights in 16 bits (12 of 18 bytes)."""


class Savings(NamedTuple):
    """What a model's layers save."""

    model: Model
    states: float = ADAMS_SHARE
    """Share of the optimizer's states in what a layer takes without activations."""

    def kept(self, tp: int, recompute: Recompute) -> NDArray[np.float64]:
        """Return the share of its activations that each layer keeps, on a rank of `tp`."""
        return np.array(_kept(self.model, tp, recompute))

    def held(self, dp: int) -> float:
        """Return the share of weights, gradients and states that one of dp replicas holds."""
        return 1 - self.states * (1 - 1 / dp)

    def again(self, recompute: Recompute) -> NDArray[np.float64]:
        """Return what is done again as a share of each layer's forward + backward time."""
        return FORWARD_SHARE * np.array(done_again(self.model, recompute))


def kept_values(a: Architecture, layer: int, tp: int, recompute: Recompute = "none") -> float:
    """Return the values that a block keeps of one token for its backward pass, on a rank of tp."""
    if recompute == "full":
        return float(a.hidden)
    heads = 2 * a.heads + 2 * a.kv_heads  # queries and output, keys and values
    shared = float(heads * a.head_dim)
    if recompute == "none":
        shared += (3 if a.facts["gated"] else 2) * mlp_width(a, layer)
    return 4 * a.hidden + shared / tp


def mlp_width(a: Architecture, layer: int) -> int:
    """Return the width of a block's MLP, of all experts that a token uses."""
    return a.active_experts * a.expert_width if a.has_experts(layer) else a.mlp_width


def of_mlp(name: str) -> bool:
    """Say whether a matrix belongs to the MLP, by its name."""
    return not name.startswith("self_attn.")


@cache
def _kept(model: Model, tp: int, recompute: Recompute) -> tuple[float, ...]:
    a = model.architecture()
    shares = (kept_values(a, i, tp, recompute) / kept_values(a, i, tp) for i in range(a.layers))
    return (1.0, *shares, 1.0)


@cache
def done_again(model: Model, recompute: Recompute) -> tuple[float, ...]:
    """Return what is done again of each layer's forward pass, as a share of its arithmetic."""
    a = model.architecture()
    if recompute != "selective":
        return (0.0, *(float(recompute == "full") for _ in range(a.layers)), 0.0)
    scores, shares = a.attention_flop((model.sequence_length + 1) // 2), list[float]()
    for i in range(a.layers):
        flop = {m.name: 2 * m.active * m.inputs * m.outputs for m in a.matrices(i)}
        mlp = sum(size for name, size in flop.items() if of_mlp(name))
        shares.append(mlp / (sum(flop.values()) + scores[i]))
    return (0.0, *shares, 0.0)


class Savers(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan may use to save memory."""

    recompute: tuple[Recompute, ...] = ("none",)
    """What a stage may do, in ascending order of time."""
    sharded: bool = False
    """Whether replicas share out the optimizer's states and its work."""


NO_SAVERS = Savers()
