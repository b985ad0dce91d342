"""A bound that no placement on these devices passes, for each simulator: how good can one be?

A request can be answered by a *way*: a config of at most these devices whose weights fit into one,
and (where requests run together) a batch size, by which the answer can come in time at all. Where a
model has no way, none of its requests is answered. Two relaxations of the rest, the lower of which
counts.

*Work*. Whoever answers a request in time spends on it at least the device-seconds of the model's
least way, `op` times the sum of the stages', within the request's window; no device does more than
a second's work a second. So the requests answered are answered by a fluid system too, in which
devices work on anything, in any pieces, at once. What each simulator's windows and ways are, and
why, is said in `demand`. For a set S of requests let F(S) be the most work of S that the fluid
system does within the windows (earliest deadline first). F is the rank function of a polymatroid,
its feasible work; the most requests, sum of x_r / w_r for work x_r of w_r, are found greedily, the
least w_r first: the sum over the levels of w of what F grows by, over w (Edmonds 1970).

*Memory*. A placed model takes at least its least way's weights times devices; so the requests of
placed models are at most those of a fractional knapsack.
"""

from heapq import heappop, heappush
from typing import Any, NamedTuple

import numpy as np

from beta.inputs.arrays import Bools, Floats
from beta.plan.demand import Demand, demand
from beta.plan.problem import Problem
from common.kernels import compiled

CRUMB = 1e-8
"""Device-seconds that are counted as done rather than done."""
MOST_LEVELS = 24
"""Different least works that are told apart; between them work is rounded down, which only loosens
the bound."""
FEW = 100_000
"""Requests that are not worth compiling for."""
SLACK = 1 + 1e-9
"""For rounding errors, upwards."""


class Bound(NamedTuple):
    """Shares of the training requests that can be answered in time at most."""

    work: float
    memory: float

    @property
    def attainment(self) -> float:
        """The lower of the two."""
        return min(self.work, self.memory)


@compiled
def fluid_work(arrival: Floats, deadline: Floats, work: Floats, speed: float) -> float:
    """Return the most work done in time by `speed` devices that can share any work at will.

    Earliest deadline first; `arrival` ascends. Work so little that time would not advance, which
    depends on how late it is, is counted as done.
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
        did = min((until - now) * speed, left)
        left -= did
        done += did
        if left < CRUMB or now + left / speed <= now:
            done += left
        elif until < due:
            heappush(waiting, (due, left))
        now = until
    return done


def upper_bound(problem: Problem) -> Bound:
    """Return what no placement and no dispatch can pass on the training workload."""
    found = demand(problem)
    return Bound(_work(problem, found), _memory(problem, found))


def _work(problem: Problem, found: Demand) -> float:
    train, n = problem.known(), len(problem.train)
    least = found.least_work_s
    levels = np.unique(least[np.isfinite(least)])
    if len(levels) > MOST_LEVELS:
        levels = levels[np.linspace(0, len(levels) - 1, MOST_LEVELS).astype(np.int64)]
    if problem.kind == "batching" and problem.switches.idle_break:
        # The original's defect lets a batch begin before its requests come.
        return min(float(np.isfinite(least)[train.model].sum()) / max(n, 1) * SLACK, 1.0)
    each = _rounded_down(least, levels)[train.model]
    begin = train.arrival + found.lead_s
    end = train.arrival + np.maximum(found.slo_s[train.model] * SLACK - found.tail_s, 0)
    speed, count, before = float(problem.cluster.devices), 0.0, 0.0
    kernel: Any = fluid_work
    work = kernel if len(train) * len(levels) > FEW else kernel.py_func
    for level in levels:
        mine: Bools = each <= level
        done = work(begin[mine], end[mine], each[mine], speed)
        count += (done - before) / level
        before = done
    return min(count / max(n, 1) * SLACK, 1.0)


def _rounded_down(work: Floats, levels: Floats) -> Floats:
    """Return each work as the largest level that is not above it; infinite stays infinite."""
    if not len(levels):
        return work
    below = levels[np.maximum(np.searchsorted(levels, work, side="right") - 1, 0)]
    return np.where(np.isfinite(work), below, np.inf)


def _memory(problem: Problem, found: Demand) -> float:
    """Return the share of requests for what fits at least weights, a last model in part."""
    left = problem.cluster.devices * problem.cluster.memory_bytes
    requests = problem.known().counts(len(problem.models)).astype(np.float64)
    bytes_, served = np.maximum(found.least_bytes, 1), 0.0
    for m in np.argsort(-requests / bytes_, kind="stable"):
        if bytes_[m] == np.inf:  # no way to answer it
            continue
        part = min(1.0, left / bytes_[m])
        served += part * requests[m]
        left -= part * bytes_[m]
    return min(float(served / max(len(problem.train), 1)) * SLACK, 1.0)
