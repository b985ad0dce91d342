"""The methods by name: the schedule each runs and the arithmetic of its output layer."""

from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from common.errors import InputError
from vocab_parallel.plan.costs import Costs
from vocab_parallel.plan.interlaced import interlaced
from vocab_parallel.plan.interleaved import interleaved
from vocab_parallel.plan.one_forward_one_backward import one_forward_one_backward
from vocab_parallel.plan.passes import Schedule
from vocab_parallel.plan.sharded import sharded
from vocab_parallel.plan.v_half import v_half
from vocab_parallel.plan.zero_bubble import zero_bubble
from vocab_parallel.plan.zero_bubble_v import zero_bubble_v

Output = Literal["whole", "vocab-1", "vocab-2"]
"""Arithmetic of the output layer: whole on the last stage, or sharded by Algorithm 1 or 2."""


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """One way to train: a schedule for (p, m, costs, v) and the arithmetic of its output layer."""

    about: str
    output: Output
    make: Callable[[int, int, Costs, int], Schedule]
    redistributes: bool = False
    """Moves transformer layers off the last stage."""
    chunks: int | None = 1
    """Chunks (virtual stages) of every rank; None: as many as are asked for (v)."""

    def chunks_of(self, virtual: int) -> int:
        """Return the chunks of every rank where `virtual` stages are asked for."""
        return virtual if self.chunks is None else self.chunks


METHODS: Mapping[str, Method] = {
    "baseline": Method(
        about="1F1B, whole vocabulary layers on the first and last stage",
        output="whole",
        make=lambda p, m, costs, v: one_forward_one_backward(p, m),
    ),
    "redis": Method(
        about="baseline with transformer layers moved off the last stage",
        output="whole",
        make=lambda p, m, costs, v: one_forward_one_backward(p, m, method="redis"),
        redistributes=True,
    ),
    "interlaced": Method(
        about="sharded vocabulary, all ranks meet at the output layer",
        output="vocab-1",
        make=lambda p, m, costs, v: interlaced(p, m),
    ),
    "vocab-1": Method(
        about="sharded vocabulary on 1F1B, two barriers (Algorithm 1)",
        output="vocab-1",
        make=lambda p, m, costs, v: sharded(p, m, 2, costs),
    ),
    "vocab-2": Method(
        about="sharded vocabulary on 1F1B, one barrier (Algorithm 2)",
        output="vocab-2",
        make=lambda p, m, costs, v: sharded(p, m, 1, costs),
    ),
    "naive": Method(
        about="sharded vocabulary on 1F1B, three barriers",
        output="vocab-1",
        make=lambda p, m, costs, v: sharded(p, m, 3, costs),
    ),
    "v-half": Method(
        about="V-Half, whole vocabulary layers on the first rank",
        output="whole",
        make=lambda p, m, costs, v: v_half(p, m, 0, costs),
        chunks=2,
    ),
    "v-half-vocab-1": Method(
        about="sharded vocabulary on V-Half, two barriers",
        output="vocab-1",
        make=lambda p, m, costs, v: v_half(p, m, 2, costs),
        chunks=2,
    ),
    "v-half-vocab-2": Method(
        about="sharded vocabulary on V-Half, one barrier",
        output="vocab-2",
        make=lambda p, m, costs, v: v_half(p, m, 1, costs),
        chunks=2,
    ),
    "interleaved": Method(
        about="1F1B of v chunks per rank (virtual stages), whole vocabulary layers",
        output="whole",
        make=lambda p, m, costs, v: interleaved(p, m, 0, chunks=v, costs=costs),
        chunks=None,
    ),
    "interleaved-vocab-1": Method(
        about="1F1B of v chunks per rank (virtual stages), sharded vocabulary, two barriers",
        output="vocab-1",
        make=lambda p, m, costs, v: interleaved(p, m, 2, chunks=v, costs=costs),
        chunks=None,
    ),
    "interleaved-vocab-2": Method(
        about="1F1B of v chunks per rank (virtual stages), sharded vocabulary, one barrier",
        output="vocab-2",
        make=lambda p, m, costs, v: interleaved(p, m, 1, chunks=v, costs=costs),
        chunks=None,
    ),
    "zb-h1": Method(
        about="1F1B with W passes of their own (ZB-H1), whole vocabulary layers",
        output="whole",
        make=lambda p, m, costs, v: zero_bubble(p, m, 0, costs),
    ),
    "zb-h1-vocab-1": Method(
        about="1F1B with W passes of their own (ZB-H1), sharded vocabulary, two barriers",
        output="vocab-1",
        make=lambda p, m, costs, v: zero_bubble(p, m, 2, costs),
    ),
    "zb-h1-vocab-2": Method(
        about="1F1B with W passes of their own (ZB-H1), sharded vocabulary, one barrier",
        output="vocab-2",
        make=lambda p, m, costs, v: zero_bubble(p, m, 1, costs),
    ),
    "zb-v": Method(
        about="two chunks per rank in a V with W passes of their own (ZB-V), whole vocabulary"
        " layers on the first rank",
        output="whole",
        make=lambda p, m, costs, v: zero_bubble_v(p, m, 0, costs),
        chunks=2,
    ),
    "zb-v-vocab-1": Method(
        about="sharded vocabulary on ZB-V, two barriers",
        output="vocab-1",
        make=lambda p, m, costs, v: zero_bubble_v(p, m, 2, costs),
        chunks=2,
    ),
    "zb-v-vocab-2": Method(
        about="sharded vocabulary on ZB-V, one barrier",
        output="vocab-2",
        make=lambda p, m, costs, v: zero_bubble_v(p, m, 1, costs),
        chunks=2,
    ),
}


def make_schedule(
    method: str, ranks: int, batches: int, costs: Costs | None = None, *, virtual: int = 2
) -> Schedule:
    """Return a method's schedule; `costs` are the relative times of F and B (1 : 2)."""
    return find(method).make(ranks, batches, costs or Costs(), virtual)


def find(method: str) -> Method:
    """Return a method by name."""
    if method not in METHODS:
        raise InputError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    return METHODS[method]
