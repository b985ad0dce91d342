"""The fast simulator with batching: requests of one model wait together and run together.

Each model has one queue, first come first served, for all its groups. A group that gets free takes
the model that waits longest, and as many of its requests as the rule says (`batches`). Not in the
paper's figures.
"""

from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np

from beta.inputs.arrays import Bools, Floats, Indices, Ints
from beta.inputs.model import Model
from beta.inputs.workload import Workload
from beta.plan.placement import Placement
from beta.simulate.admission import book
from beta.simulate.batches import Lines, Pipe, form, last_end, longest_waiting, sizes_of
from beta.simulate.fast import NEVER, NOBODY, Outcome, slo_of_requests
from beta.simulate.tables import OVERHEAD_S, layout_of, rounded, tables_of
from common.kernels import compiled


class _State(NamedTuple):
    """What serving reads and writes; all groups share one queue of each model."""

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
    """Seconds: (config, model, batch, stage); infinite where not profiled."""
    sizes: Ints
    clock: Floats
    finish: Floats
    good: Bools
    group_of: Indices


@compiled
def _lines(s: _State, group: int) -> Lines:
    return Lines(s.waiting, s.head, s.tail, s.hosts[group], s.arrival, s.deadline)


@compiled
def _pipe(s: _State, group: int) -> Pipe:
    c = s.config[group]
    depth = s.stages[c]
    return Pipe(s.sizes, s.clock[group, :depth], s.latency[c, :, :, :depth], OVERHEAD_S)


@compiled
def _drop_hopeless(s: _State, now: float, model: int, group: int) -> None:
    """Refuse the queue's first requests as long as they would be late even alone."""
    while s.head[model] < s.tail[model]:
        request = s.waiting[s.head[model]]
        pipe = _pipe(s, group)
        if last_end(pipe.clock, pipe.latency[model, 0], now) + OVERHEAD_S <= s.deadline[request]:
            return
        s.group_of[request] = group
        s.head[model] += 1


@compiled
def _execute(s: _State, now: float, model: int, group: int) -> None:
    pipe = _pipe(s, group)
    b = form(_lines(s, group), pipe, model, now)
    end = book(pipe.clock, pipe.latency[model, b], now + OVERHEAD_S)
    for _ in range(s.sizes[b]):
        request = s.waiting[s.head[model]]
        s.head[model] += 1
        s.finish[request], s.group_of[request] = end, group
        s.good[request] = end <= s.deadline[request]


@compiled
def _serve(s: _State, now: float, model: int, group: int) -> bool:
    """Start a batch of a model, or of another if all of its requests are hopeless."""
    while model != NOBODY:
        _drop_hopeless(s, now, model, group)
        if s.head[model] < s.tail[model]:
            _execute(s, now, model, group)
            return True
        model = longest_waiting(_lines(s, group))
    return False


@compiled
def _wake(s: _State, idle: list[tuple[float, int]], until: float, idle_break: bool) -> None:
    """Let groups that got free by now look for work."""
    while idle and idle[0][0] <= until:
        now, group = heappop(idle)
        model = longest_waiting(_lines(s, group))
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


def _latencies(models: tuple[Model, ...], placement: Placement, sizes: Ints) -> Floats:
    configs = placement.configs()
    tables = [tables_of(models, configs, batch=int(size)).latency for size in sizes]
    return np.ascontiguousarray(np.stack(tables).transpose(2, 1, 0, 3))


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
    """Return what becomes of every request with batches of the sizes profiled.

    `slo` are seconds per request (default: each model's). `idle_break`: see `Switches`.
    """
    tables = tables_of(models, placement.configs())
    layout, n, groups = layout_of(placement, tables), len(workload), len(placement.groups)
    hosts = np.zeros((groups, len(models)), np.bool_)
    for g, group in enumerate(placement.groups):
        hosts[g, list(group.models)] = True
    waiting, head = _queues(workload, len(models))
    sizes = sizes_of(models)
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
        _latencies(models, placement, sizes),
        sizes,
        np.zeros((groups, tables.latency.shape[2])),
        *outcome,
    )
    play(state, workload.model, idle_break)
    return outcome
