"""A bound that no placement on these devices passes: how far from the best a placement can be.

Two relaxations, the lower of which counts. *Work*: a request answered in time needs, between its
arrival and its deadline, at least its model's least device-seconds; devices work on anything, in
any pieces, at once. The most requests of such a fluid system are found exactly: its feasible work
is a polymatroid, so requests of little work come first, and the most work of any set is what
earliest-deadline-first does. *Memory*: models placed at their least weights, in fractions.
"""

from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np

from beta.arrays import Bools, Floats
from beta.compiled import compiled
from beta.inputs.model import Model
from beta.plan.problem import Problem
from beta.simulate.tables import OVERHEAD_S, STAGE_PENALTY, rounded

CRUMB = 1e-8
"""Device-seconds that are counted as done rather than done."""


class Bound(NamedTuple):
    """Shares of the training requests that can be answered in time at most."""

    work: float
    memory: float

    @property
    def attainment(self) -> float:
        """The lower of the two."""
        return min(self.work, self.memory)


def least_work_s(model: Model, devices: int) -> float:
    """Return the least device-seconds of an answer in time; infinite if there is no config."""
    slo = float(rounded(np.array([model.slo_s]))[0])
    least = np.inf
    for config, record in model.profile.records.items():
        if 1 not in record.stage_s or config.devices > devices:
            continue
        slower = np.array(record.stage_s[1]) * (1 + STAGE_PENALTY * config.pp)
        seconds = float(rounded(slower).sum())
        if seconds + OVERHEAD_S <= slo * (1 + 1e-9):
            least = min(least, seconds * config.op)
    return least


@compiled
def fluid_work(arrival: Floats, deadline: Floats, work: Floats, speed: float) -> float:
    """Return the most work done in time by `speed` devices that can share any work at will.

    Earliest deadline first; `arrival` ascends.
    """
    waiting = [(0.0, 0.0)]
    waiting.clear()
    now, done, i, n = 0.0, 0.0, 0, len(arrival)
    while i < n or waiting:
        if not waiting:
            now = max(now, arrival[i])
        while i < n and arrival[i] <= now:
            heappush(waiting, (deadline[i], work[i]))
            i += 1
        due, left = heappop(waiting)
        if due <= now:
            continue
        until = min(now + left / speed, due)
        if i < n and arrival[i] < until:
            until = arrival[i]
        did = (until - now) * speed
        left -= did
        done += did
        if left < CRUMB:
            done += left  # a rounding error, or so little that time would not advance
        elif until < due:
            heappush(waiting, (due, left))
        now = until
    return done


def upper_bound(problem: Problem) -> Bound:
    """Return what no placement and no dispatch can pass on the training workload."""
    train, n = problem.known(), len(problem.train)
    work = np.array([least_work_s(model, problem.cluster.devices) for model in problem.models])
    slo = rounded(np.array([model.slo_s for model in problem.models]))
    each = work[train.model]
    deadline = train.arrival + np.maximum(slo[train.model] * (1 + 1e-9) - OVERHEAD_S, 0)
    count, before = 0.0, 0.0
    for level in np.unique(work[np.isfinite(work)]):
        mine: Bools = each <= level
        done = fluid_work(
            train.arrival[mine], deadline[mine], each[mine], float(problem.cluster.devices)
        )
        count += (done - before) / level
        before = done
    return Bound(min(count / max(n, 1) * (1 + 1e-9), 1.0), _memory(problem))


def _memory(problem: Problem) -> float:
    """Return the share of requests for what fits at least weights, a last model in part."""
    left = problem.cluster.devices * problem.cluster.memory_bytes
    requests = problem.known().counts(len(problem.models)).astype(np.float64)
    bytes_ = np.array(
        [
            min(max(r.memory_bytes, 1) * c.devices for c, r in model.profile.records.items())
            for model in problem.models
        ]
    )
    served = 0.0
    for m in np.argsort(-requests / bytes_, kind="stable"):
        if bytes_[m] == np.inf:  # nobody knows its weights, so no group holds it
            break
        part = min(1.0, left / bytes_[m])
        served += part * requests[m]
        left -= part * bytes_[m]
    return min(float(served / max(len(problem.train), 1)) * (1 + 1e-9), 1.0)
