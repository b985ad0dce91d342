"""The fast simulator: requests one by one in order of arrival, no event queue (AlpaServe §6.1).

A request goes to the replica whose last stage is free first, runs through the stages as each gets
free, and is refused if the answer would come too late; a refused one takes no time of any device.
This is the simulator behind all published attainments; `readable` says the same in plain Python.
"""

from typing import NamedTuple

import numpy as np

from beta.inputs.arrays import Bools, Floats, Indices, Ints
from beta.inputs.playing import Dispatch
from beta.inputs.workload import Workload
from beta.plan.placement import Placement
from beta.simulate.tables import OVERHEAD_S, Layout, Tables, layout_of, rounded
from common.kernels import compiled

NOBODY = -1
"""Group of a request whose model is not placed."""
NEVER = 1e100


class Outcome(NamedTuple):
    """What became of each request, in order of arrival."""

    finish: Floats
    """Seconds; of a refused request its arrival."""
    good: Bools
    group: Indices
    """The group that was asked, also where it refused; or NOBODY."""


@compiled
def _answer(
    now: float,
    model: int,
    group: int,
    config: Ints,
    stages: Ints,
    latency: Floats,
    clock: Floats,
    times: Floats,
) -> float:
    """Return when a group would answer; `times` are the ends of the stages."""
    c = config[group]
    for k in range(stages[c]):
        now = max(now, clock[group, k]) + latency[model, c, k]
        times[k] = now
    return now + OVERHEAD_S


@compiled
def _choose(
    model: int, config: Ints, first: Ints, groups: Ints, stages: Ints, clock: Floats
) -> int:
    """Return the model's group whose last stage is free first, the lowest of equal ones."""
    best, soonest = NOBODY, NEVER
    for j in range(first[model], first[model + 1]):
        group = groups[j]
        free = clock[group, stages[config[group]] - 1]
        if free < soonest:
            best, soonest = group, free
    return best


@compiled
def _rescue(
    now: float,
    model: int,
    chosen: int,
    config: Ints,
    first: Ints,
    groups: Ints,
    stages: Ints,
    latency: Floats,
    clock: Floats,
    times: Floats,
) -> int:
    """Return the model's group that answers first."""
    best, soonest = chosen, NEVER
    for j in range(first[model], first[model + 1]):
        group = groups[j]
        finish = _answer(now, model, group, config, stages, latency, clock, times)
        if finish < soonest:
            best, soonest = group, finish
    return best


@compiled
def play(
    arrival: Floats,
    model: Indices,
    slo: Floats,
    config: Ints,
    first: Ints,
    groups: Ints,
    stages: Ints,
    latency: Floats,
    clock: Floats,
    by_deadline: bool,
    finish: Floats,
    good: Bools,
    group_of: Indices,
) -> None:
    """Serve all requests; `slo` is per request; `clock` (groups, stages) carries on."""
    times = np.empty(latency.shape[2])
    for i in range(len(arrival)):
        now, m = arrival[i], model[i]
        finish[i], good[i], group_of[i] = now, False, NOBODY
        if m < 0:
            continue
        group = _choose(m, config, first, groups, stages, clock)
        if group == NOBODY:
            continue
        answer = _answer(now, m, group, config, stages, latency, clock, times)
        if by_deadline and answer - now > slo[i]:
            group = _rescue(now, m, group, config, first, groups, stages, latency, clock, times)
            answer = _answer(now, m, group, config, stages, latency, clock, times)
        group_of[i] = group
        if answer - now <= slo[i]:
            finish[i], good[i] = answer, True
            for k in range(stages[config[group]]):
                clock[group, k] = times[k]


def slo_of_requests(workload: Workload, tables: Tables) -> Floats:
    """Return each request's SLO, seconds; an unknown model's is 0."""
    return np.append(tables.slo, 0.0)[workload.model]


def simulate(
    workload: Workload,
    placement: Placement,
    tables: Tables,
    *,
    slo: Floats | None = None,
    dispatch: Dispatch = "first_free",
    clock: Floats | None = None,
) -> Outcome:
    """Return what becomes of every request.

    `slo` are seconds per request (default: each model's); `clock` (groups, most stages) is when
    each stage gets free, and is carried on in place.
    """
    layout: Layout = layout_of(placement, tables)
    n = len(workload)
    outcome = Outcome(np.empty(n), np.empty(n, np.bool_), np.empty(n, np.int32))
    if clock is None:
        clock = np.zeros((len(layout.config), tables.latency.shape[2]))
    play(
        workload.arrival,
        workload.model,
        slo_of_requests(workload, tables) if slo is None else rounded(slo),
        *layout,
        tables.stages,
        tables.latency,
        clock,
        dispatch == "deadline",
        *outcome,
    )
    return outcome
