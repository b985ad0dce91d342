"""Compiled dynamic program over contiguous rank and layer ranges (one node sequence, one B).

State (r, l): ranks >= r and layers >= l are still to be covered. A choice is a device group
that starts at r, its (dp, tp) and the end of its layers. Shapes: N ranks, L layers.
"""

# numpy's stubs take elements of arrays for arrays; numba checks the types when it compiles.
# pyright: basic, reportArgumentType=false, reportReturnType=false

from typing import NamedTuple

import numpy as np

from common.kernels import compiled
from metis.plan.cost import BYTES_PER_MS
from metis.plan.kernel_balance import tightest
from metis.plan.tables import Floats, Ints, Tables


class Cover(NamedTuple):
    """The best way to cover what is left from each state, shape (N + 1, L + 1)."""

    value: Floats
    """Least sum (or maximum) of stage times, ms; inf where there is none."""
    stages: Ints
    """Stages of that way."""
    slot: Ints
    degree: Ints
    """log2 tp."""
    end: Ints
    """End of the layers of its first stage."""


class Limits(NamedTuple):
    """What the stages of a cover have to keep."""

    pace: float
    """Every stage and link takes less, ms."""
    finish: float
    """Every all-reduce + update takes less, ms."""
    whole_flight: bool
    """Memory holds every in-flight micro-batch of the way below; otherwise one, which never
    rejects a stage that fits."""


@compiled
def _fits(t: Tables, o: int, first: int, end: int, flight: int, limits: Limits) -> bool:
    """Say whether a stage keeps finish and memory; if not, no longer range does (same flight)."""
    update = t.update[o] * ((end - first) / (t.ranges.shape[1] - 1))
    reduce = t.allreduce[o] * t.ranges[t.parameters[o], first, end]
    if update + reduce >= limits.finish:
        return False
    demand, capacity = tightest(t, o, first, end, flight)
    return demand <= capacity


@compiled
def _pace_and_total(
    t: Tables, o: int, first: int, end: int, batches: int, bandwidth: float
) -> tuple[float, float]:
    """Return a stage's pace and its share of the sum, ms. `bandwidth` 0: it is the last one."""
    layers, time = t.ranges.shape[1] - 1, t.ranges[t.time[o], first, end]
    if bandwidth == 0.0:
        return time, time + batches * t.sync[o]
    amount = t.send_before_head[o] if end == layers - 1 else t.send_hidden[o]
    send = amount / (bandwidth * BYTES_PER_MS)
    return max(time, send), time + send


@compiled
def _try_stage(
    t: Tables,
    rank: int,
    slot: int,
    degree: int,
    batches: int,
    bandwidth: float,
    limits: Limits,
    minimise_maximum: bool,
    best: Cover,
) -> None:
    """Improve `best` at every (rank, layer) by starting with this slot at this degree."""
    o, layers = t.option_of[slot, degree, 0], t.ranges.shape[1] - 1
    after, last = rank + t.size[slot], bandwidth == 0.0
    fixed = batches * t.batch_generator[o] if rank == 0 else 0.0
    for first in range(layers if rank > 0 else 1):
        for end in range(layers if last else first + 1, layers + 1):
            if t.ranges[t.time[o], first, end] >= limits.pace:
                break
            below = best.value[after, end]
            if below == np.inf:
                continue
            flight = min(batches, best.stages[after, end] + 1) if limits.whole_flight else 1
            if not _fits(t, o, first, end, flight, limits):
                if limits.whole_flight:
                    continue
                break
            pace, total = _pace_and_total(t, o, first, end, batches, bandwidth)
            value = max(pace, below) if minimise_maximum else total + fixed + below
            if pace < limits.pace and value < best.value[rank, first]:
                best.value[rank, first] = value
                best.stages[rank, first] = best.stages[after, end] + 1
                best.slot[rank, first] = slot
                best.degree[rank, first] = degree
                best.end[rank, first] = end


@compiled
def cover(
    t: Tables,
    slots_at: Ints,
    border_bandwidth: Floats,
    batches: int,
    limits: Limits,
    minimise_maximum: bool,
) -> Cover:
    """Return the best covers whose stages keep the limits.

    `slots_at` (N, choices) holds slot numbers, -1 for none. `border_bandwidth[r]` is the fastest
    that a link between ranks r - 1 and r can be (0 at the end): with it sends are never
    overestimated. The last stage adds B times its time outside layers, the first B times the
    batch generator (neither to a maximum).
    """
    devices, layers = len(slots_at), t.ranges.shape[1] - 1
    shape = (devices + 1, layers + 1)
    best = Cover(
        np.full(shape, np.inf),
        np.zeros(shape, dtype=np.int64),
        np.full(shape, -1, dtype=np.int64),
        np.zeros(shape, dtype=np.int64),
        np.zeros(shape, dtype=np.int64),
    )
    best.value[devices, layers] = 0.0
    for rank in range(devices - 1, -1, -1):
        for slot in slots_at[rank]:
            if slot < 0:
                continue
            bandwidth = border_bandwidth[rank + t.size[slot]]
            for degree in range(t.option_of.shape[1]):
                if t.option_of[slot, degree, 0] >= 0:
                    _try_stage(
                        t, rank, slot, degree, batches, bandwidth, limits, minimise_maximum, best
                    )
    return best
