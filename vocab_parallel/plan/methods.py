"""The methods by name: the schedule each runs and the arithmetic of its output layer."""

from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from common.errors import InputError
from vocab_parallel.plan.costs import Costs
from vocab_parallel.plan.interlaced import interlaced
from vocab_parallel.plan.one_forward_one_backward import one_forward_one_backward
from vocab_parallel.plan.passes import Schedule
from vocab_parallel.plan.sharded import sharded
from vocab_parallel.plan.v_half import v_half

Output = Literal["whole", "vocab-1", "vocab-2"]
"""Arithmetic of the output layer: whole on the last stage, or sharded by Algorithm 1 or 2."""


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """One way to train: its schedule for (p, m, costs) and the arithmetic of its output layer."""

    about: str
    output: Output
    make: Callable[[int, int, Costs], Schedule]
    redistributes: bool = False
    """Moves transformer layers off the last stage."""
    chunks: int = 1


METHODS: Mapping[str, Method] = {
    "baseline": Method(
        about="1F1B, whole vocabulary layers on the first and last stage",
        output="whole",
        make=lambda p, m, costs: one_forward_one_backward(p, m),
    ),
    "redis": Method(
        about="baseline with transformer layers moved off the last stage",
        output="whole",
        make=lambda p, m, costs: one_forward_one_backward(p, m, method="redis"),
        redistributes=True,
    ),
    "interlaced": Method(
        about="sharded vocabulary, all ranks meet at the output layer",
        output="vocab-1",
        make=lambda p, m, costs: interlaced(p, m),
    ),
    "vocab-1": Method(
        about="sharded vocabulary on 1F1B, two barriers (Algorithm 1)",
        output="vocab-1",
        make=lambda p, m, costs: sharded(p, m, 2, costs),
    ),
    "vocab-2": Method(
        about="sharded vocabulary on 1F1B, one barrier (Algorithm 2)",
        output="vocab-2",
        make=lambda p, m, costs: sharded(p, m, 1, costs),
    ),
    "naive": Method(
        about="sharded vocabulary on 1F1B, three barriers",
        output="vocab-1",
        make=lambda p, m, costs: sharded(p, m, 3, costs),
    ),
    "v-half": Method(
        about="V-Half, whole vocabulary layers on the first rank",
        output="whole",
        make=lambda p, m, costs: v_half(p, m, 0, costs),
        chunks=2,
    ),
    "v-half-vocab-1": Method(
        about="sharded vocabulary on V-Half, two barriers",
        output="vocab-1",
        make=lambda p, m, costs: v_half(p, m, 2, costs),
        chunks=2,
    ),
    "v-half-vocab-2": Method(
        about="sharded vocabulary on V-Half, one barrier",
        output="vocab-2",
        make=lambda p, m, costs: v_half(p, m, 1, costs),
        chunks=2,
    ),
}


def make_schedule(method: str, ranks: int, batches: int, costs: Costs | None = None) -> Schedule:
    """Return a method's schedule; `costs` are the relative times of F and B (1 : 2)."""
    return find(method).make(ranks, batches, costs or Costs())


def find(method: str) -> Method:
    """Return a method by name."""
    if method not in METHODS:
        raise InputError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    return METHODS[method]
