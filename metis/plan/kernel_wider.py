"""Compiled dynamic program over contiguous rank and layer ranges (one node sequence, one B).

State (r, l): ranks >= r and layers >= l are still to be covered. A choice is a device group
that starts at r, its (dp, tp) and the end of its layers. Shapes: N ranks, L layers.
"""

from typing import NamedTuple

import numpy as np

from metis.plan.compiled import compiled
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


@compiled
def _least_send(t: Tables, o: int, before_head: bool, bandwidth: float) -> float:
    amount = t.send_before_head[o] if before_head else t.send_hidden[o]
    return amount / (bandwidth * BYTES_PER_MS)


@compiled
def cover(
    t: Tables,
    slots_at: Ints,
    border_bandwidth: Floats,
    batches: int,
    limit: float,
    finish_limit: float,
    minimise_maximum: bool,
    whole_flight: bool,
) -> Cover:
    """Return the best covers with every stage (and paced link) strictly below `limit`, ms.

    Stages whose all-reduce and update take `finish_limit` ms or more are left out. `slots_at` (N, choices) holds slot numbers, -1 for none. `border_bandwidth[r]` is the fastest
    that a link between ranks r - 1 and r can be: with it sends are never overestimated. With
    `whole_flight` the memory test counts every in-flight micro-batch of the way below;
    otherwise one, which never rejects a stage that fits. The last stage adds B times its time
    outside layers, the first B times the batch generator (not to a maximum).
    """
    devices, layers = len(slots_at), t.ranges.shape[1] - 1
    value = np.full((devices + 1, layers + 1), np.inf)
    stages = np.zeros((devices + 1, layers + 1), dtype=np.int64)
    slot = np.full((devices + 1, layers + 1), -1, dtype=np.int64)
    degree = np.zeros((devices + 1, layers + 1), dtype=np.int64)
    cut = np.zeros((devices + 1, layers + 1), dtype=np.int64)
    value[devices, layers] = 0.0
    for r in range(devices - 1, -1, -1):
        for s in slots_at[r]:
            if s < 0:
                continue
            after = r + t.size[s]
            last = after == devices
            for k in range(t.option_of.shape[1]):
                o = t.option_of[s, k, 0]
                if o < 0:
                    continue
                for first in range(layers if r > 0 else 1):
                    for end in range(layers if last else first + 1, layers + 1):
                        time = t.ranges[t.time[o], first, end]
                        if time >= limit:
                            break
                        below = value[after, end]
                        if below == np.inf:
                            continue
                        flight = min(batches, stages[after, end] + 1) if whole_flight else 1
                        demand, capacity = tightest(t, o, first, end, flight)
                        if demand > capacity:
                            break
                        update = t.update[o] * ((end - first) / layers)
                        reduce = t.allreduce[o] * t.ranges[t.parameters[o], first, end]
                        if update + reduce >= finish_limit:
                            break
                        pace, total = time, time
                        if last:
                            total += batches * t.sync[o]
                        else:
                            send = _least_send(t, o, end == layers - 1, border_bandwidth[after])
                            pace = max(pace, send)
                            total += send
                            if pace >= limit:
                                continue
                        if r == 0:
                            total += batches * t.batch_generator[o]
                        here = max(pace, below) if minimise_maximum else total + below
                        if here < value[r, first]:
                            value[r, first] = here
                            stages[r, first] = stages[after, end] + 1
                            slot[r, first], degree[r, first], cut[r, first] = s, k, end
    return Cover(value, stages, slot, degree, cut)
