"""Where the state of a training job lies: which part of each layer a node's ranks hold.

The state is what a job cannot go on without: weights and the optimizer's states (gradients are made
anew each iteration). A rank of a stage with tensor degree tp holds a 1 / tp part of each of its
layers; of the states only a 1 / dp part of that where the optimizer is sharded. Parts are intervals
of a layer, in the order of slices and, inside them, of replicas.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metis.inputs.analytic import STORAGE, Dtype, layer_parameters
from metis.inputs.model import Model
from metis.plan.plans import Plan, Stage

Interval = tuple[float, float]


class Bytes(NamedTuple):
    """What a parameter takes in the state."""

    weight: int
    states: int


def bytes_of(dtype: Dtype) -> Bytes:
    """Return them for a type of weights: of what the memory model counts, all but the gradient."""
    kind = STORAGE[dtype]
    return Bytes(kind.value, kind.held - kind.value - kind.gradient)


class Kind(NamedTuple):
    """A stretch of layers that lies in one stage before and in one after; weights or states."""

    size: float
    """Bytes of the whole stretch."""
    before: Stage
    after: Stage
    sharded: bool
    """Whether it is the states, which replicas may share out."""


def kinds(before: Plan, after: Plan, model: Model, each: Bytes) -> Iterator[Kind]:
    """Yield all of the state, stretch by stretch."""
    parameters = [0, *accumulate(layer_parameters(model))]
    ends = {s.end_layer for plan in (before, after) for s in plan.stages}
    for first, end in pairwise(sorted({0, *ends})):
        old, new = (_holder(plan.stages, first) for plan in (before, after))
        count = parameters[end] - parameters[first]
        yield Kind(count * each.weight, old, new, sharded=False)
        yield Kind(count * each.states, old, new, sharded=True)


def _holder(stages: Sequence[Stage], layer: int) -> Stage:
    return next(stage for stage in stages if layer < stage.end_layer)


def pieces(kind: Kind) -> NDArray[np.float64]:
    """Return the borders of the pieces that are held together, before and after, from 0 to 1."""
    cuts = [
        cut
        for stage in (kind.before, kind.after)
        for interval in _intervals(stage, sharded=kind.sharded)
        for cut in interval
    ]
    return np.unique(cuts)


def held(
    nodes: Sequence[int], stage: Stage, borders: NDArray[np.float64], *, sharded: bool
) -> NDArray[np.bool_]:
    """Return which pieces each node holds of a stage: (nodes, pieces).

    `nodes` are their counts of devices, in rank order.
    """
    found = np.zeros((len(nodes), len(borders) - 1), dtype=np.bool_)
    of_rank = [node for node, count in enumerate(nodes) for _ in range(count)]
    for rank, (low, high) in enumerate(_intervals(stage, sharded=sharded), stage.first_rank):
        first, end = np.searchsorted(borders, (low, high))
        found[of_rank[rank], first:end] = True
    return found


def _intervals(stage: Stage, *, sharded: bool) -> Iterator[Interval]:
    """Yield what each rank of a stage holds of a layer, in rank order."""
    parts = stage.dp if sharded and stage.sharded else 1
    whole = stage.tp * parts  # one division each, so that equal borders are equal floats
    for replica in range(stage.dp):
        for slice_ in range(stage.tp):
            part = slice_ * parts + (replica if parts > 1 else 0)
            yield part / whole, (part + 1) / whole
