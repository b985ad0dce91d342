"""The fast simulator with batching: requests of one model wait together and run together.

Each model has one queue, first come first served, for all its groups. A group that gets free takes
the model that waits longest and the largest batch whose answer still meets the deadline of the
batch's first request. Not in the paper's figures; AlpaServe §5 names the rule.
"""

from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np

from beta.arrays import Bools, Floats, Indices, Ints
from beta.compiled import compiled
from beta.inputs.model import Model
from beta.inputs.workload import Workload
from beta.plan.placement import Placement
from beta.simulate.fast import NEVER, NOBODY, Outcome, slo_of_requests
from beta.simulate.tables import OVERHEAD_S, layout_of, rounded, tables_of

BATCHES = (1, 2, 4, 8, 16)


class _State(NamedTuple):
    """What serving reads and writes; queues are slices of `waiting`, one per model."""

    arrival: Floats
    deadline: Floats
    waiting: Ints
    """Requests by model, each model's in order of arrival."""
    head: Ints
    tail: Ints
    """Model m's queue is `waiting[head[m]:tail[m]]`."""
    config: Ints
    hosts: Bools
    stages: Ints
    latency: Floats
    """Seconds: (batch, model, config, stage); infinite where not profiled."""
    sizes: Ints
    clock: Floats
    finish: Floats
    good: Bools
    group_of: Indices


@compiled
def _last_end(s: _State, start: float, batch: int, model: int, group: int) -> float:
    c = s.config[group]
    for k in range(s.stages[c]):
        start = max(start, s.clock[group, k]) + s.latency[batch, model, c, k]
    return start


@compiled
def _drop_hopeless(s: _State, now: float, model: int, group: int) -> None:
    """Refuse the queue's first requests as long as they would be late even alone."""
    while s.head[model] < s.tail[model]:
        request = s.waiting[s.head[model]]
        if _last_end(s, now, 0, model, group) + OVERHEAD_S <= s.deadline[request]:
            return
        s.group_of[request] = group
        s.head[model] += 1


@compiled
def _batch(s: _State, now: float, model: int, group: int) -> int:
    """Return the number of the largest batch size that is there and in time."""
    deadline = s.deadline[s.waiting[s.head[model]]]
    best = 0
    for b in range(1, len(s.sizes)):
        end = _last_end(s, now, b, model, group) + OVERHEAD_S
        # an unprofiled size takes for ever, which would be in time for a request without a target
        if s.tail[model] - s.head[model] < s.sizes[b] or end > deadline or end > NEVER:
            break
        best = b
    return best


@compiled
def _execute(s: _State, now: float, model: int, group: int) -> None:
    b, c = _batch(s, now, model, group), s.config[group]
    end = now + OVERHEAD_S
    for k in range(s.stages[c]):
        end = max(end, s.clock[group, k]) + s.latency[b, model, c, k]
        s.clock[group, k] = end
    for _ in range(s.sizes[b]):
        request = s.waiting[s.head[model]]
        s.head[model] += 1
        s.finish[request], s.group_of[request] = end, group
        s.good[request] = end <= s.deadline[request]


@compiled
def _longest_waiting(s: _State, group: int) -> int:
    best, oldest = NOBODY, NEVER
    for m in range(len(s.head)):
        if s.hosts[group, m] and s.head[m] < s.tail[m]:
            since = s.arrival[s.waiting[s.head[m]]]
            if since < oldest:
                best, oldest = m, since
    return best


@compiled
def _serve(s: _State, now: float, model: int, group: int) -> bool:
    """Start a batch of a model, or of another if all of its requests are hopeless."""
    while model != NOBODY:
        _drop_hopeless(s, now, model, group)
        if s.head[model] < s.tail[model]:
            _execute(s, now, model, group)
            return True
        model = _longest_waiting(s, group)
    return False


@compiled
def _wake(s: _State, idle: list[tuple[float, int]], until: float, idle_break: bool) -> None:
    """Let groups that got free by now look for work."""
    while idle and idle[0][0] <= until:
        now, group = heappop(idle)
        model = _longest_waiting(s, group)
        if model == NOBODY and idle_break:
            break
        if model != NOBODY and _serve(s, now, model, group):
            heappush(idle, (s.clock[group, 0], group))


@compiled
def play(s: _State, model: Indices, idle_break: bool) -> None:
    """Serve all requests."""
    idle = [(0.0, 0)]
    idle.clear()
    for i in range(len(s.arrival)):
        now, m = s.arrival[i], model[i]
        _wake(s, idle, now, idle_break)
        group, soonest = NOBODY, NEVER
        if m >= 0:
            for g in range(len(s.config)):
                free = s.clock[g, s.stages[s.config[g]] - 1]
                if s.hosts[g, m] and free < soonest:
                    group, soonest = g, free
        if group == NOBODY:
            continue
        s.tail[m] += 1
        if now >= s.clock[group, 0] and _serve(s, now, m, group):
            heappush(idle, (s.clock[group, 0], group))
    while idle:
        _wake(s, idle, NEVER, idle_break)


def _latencies(models: tuple[Model, ...], placement: Placement) -> Floats:
    configs = placement.configs()
    return np.stack([tables_of(models, configs, batch=batch).latency for batch in BATCHES])


def _queues(workload: Workload, models: int) -> tuple[Ints, Ints]:
    """Return the requests by model and where each model's begin."""
    order = np.argsort(workload.model, kind="stable").astype(np.int64)
    order = order[workload.model[order] >= 0]
    return order, np.searchsorted(workload.model[order], np.arange(models)).astype(np.int64)


def simulate(
    workload: Workload,
    placement: Placement,
    models: tuple[Model, ...],
    *,
    slo: Floats | None = None,
    idle_break: bool = False,
) -> Outcome:
    """Return what becomes of every request with batches of up to 16, where profiled.

    `slo` are seconds per request (default: each model's). `idle_break`: see `Switches`.
    """
    tables = tables_of(models, placement.configs())
    layout, n, groups = layout_of(placement, tables), len(workload), len(placement.groups)
    hosts = np.zeros((groups, len(models)), np.bool_)
    for g, group in enumerate(placement.groups):
        hosts[g, list(group.models)] = True
    waiting, head = _queues(workload, len(models))
    slos = slo_of_requests(workload, tables) if slo is None else rounded(slo)
    outcome = Outcome(workload.arrival.copy(), np.zeros(n, np.bool_), np.full(n, NOBODY, np.int32))
    state = _State(
        workload.arrival,
        workload.arrival + slos,
        waiting,
        head,
        head.copy(),
        layout.config,
        hosts,
        tables.stages,
        _latencies(models, placement),
        np.array(BATCHES, np.int64),
        np.zeros((groups, tables.latency.shape[2])),
        *outcome,
    )
    play(state, workload.model, idle_break)
    return outcome
