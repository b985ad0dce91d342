"""The event simulator: a request's way through controller, group and stages, with their delays.

It predicts the real system more closely than the fast simulator: the controller knows only how
many requests each group has outstanding, and overheads come before the stages. AlpaServe §5, §6.1.
Where a profile has batch sizes, requests run together by the rule of batching (`events_batching`).
"""

from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np

from beta.inputs.arrays import Bools, Floats, Indices, Ints
from beta.inputs.model import Model
from beta.inputs.playing import Delays
from beta.inputs.workload import Workload
from beta.plan.placement import Placement
from beta.simulate import events_batching
from beta.simulate.admission import NOBODY, admit, least_outstanding
from beta.simulate.batches import shares, sizes_of
from beta.simulate.fast import Outcome
from beta.simulate.tables import layout_of, tables_of
from common.kernels import compiled

AT_CONTROLLER, AT_GROUP, AT_STAGE = 0, 1, 2
DRAWS = 2048


class _System(NamedTuple):
    """What events read and write."""

    arrival: Floats
    model: Indices
    slo: Floats
    config: Ints
    first: Ints
    groups: Ints
    stages: Ints
    latency: Floats
    """Raw stage latencies: (models, configs, stages)."""
    delay: Floats
    """Delays drawn before: (kind, DRAWS), used round and round."""
    margin: float
    predicted: Floats
    """When admission thinks that each stage gets free: (groups, stages)."""
    busy: Floats
    """When each stage really gets free."""
    outstanding: Ints
    stage: Ints
    """The stage at which each request is."""
    finish: Floats
    good: Bools
    group_of: Indices


@compiled
def _dispatch(s: _System, request: int) -> int:
    m = s.model[request]
    if m < 0:
        return NOBODY
    return least_outstanding(s.groups[s.first[m] : s.first[m + 1]], s.outstanding)


@compiled
def _admit(s: _System, now: float, request: int) -> bool:
    """Say whether the predicted answer is in time, and if so book its stages."""
    g, m = s.group_of[request], s.model[request]
    c = s.config[g]
    latency = s.latency[m, c, : s.stages[c]]
    latest = s.arrival[request] + s.slo[request] - s.margin
    return admit(s.predicted[g], latency, now, latest) >= 0


@compiled
def _run_stage(s: _System, now: float, request: int) -> float:
    """Start the request's next stage as soon as it is free; return when that ends."""
    g, m, k = s.group_of[request], s.model[request], s.stage[request]
    s.busy[g, k] = max(s.busy[g, k], now) + s.latency[m, s.config[g], k]
    s.stage[request] += 1
    return float(s.busy[g, k])


@compiled
def _answer(s: _System, now: float, request: int) -> None:
    s.finish[request] = now
    s.good[request] = now - s.arrival[request] <= s.slo[request]
    s.outstanding[s.group_of[request]] -= 1


@compiled
def play(s: _System) -> None:
    """Handle all events in order of time; equal times in the order in which they were made."""
    drawn = np.zeros(3, np.int64)
    events = [
        (s.arrival[i] + s.delay[0, i % DRAWS], i, AT_CONTROLLER, i) for i in range(len(s.arrival))
    ]
    events.sort()
    made = len(events)
    while events:
        now, _, kind, request = heappop(events)
        following, when = kind + 1, now
        if kind == AT_CONTROLLER:
            group = _dispatch(s, request)
            s.group_of[request], s.finish[request] = group, now
            if group == NOBODY:
                continue
            s.outstanding[group] += 1
            when += s.delay[1, drawn[1] % DRAWS]
            drawn[1] += 1
        elif kind == AT_GROUP:
            if not _admit(s, now, request):
                s.finish[request] = now
                s.outstanding[s.group_of[request]] -= 1
                continue
            when += s.delay[2, drawn[2] % DRAWS]
            drawn[2] += 1
        elif s.stage[request] < s.stages[s.config[s.group_of[request]]]:
            following, when = AT_STAGE, _run_stage(s, now, request)
        else:
            _answer(s, now, request)
            continue
        heappush(events, (when, made, following, request))
        made += 1


def simulate(
    workload: Workload,
    placement: Placement,
    models: tuple[Model, ...],
    *,
    slo: Floats | None = None,
    delays: Delays | None = None,
    seed: int = 0,
) -> Outcome:
    """Return what becomes of every request; a refused one finishes when it is refused.

    `slo` are seconds per request (default: each model's). Delays are drawn from `seed`.
    """
    delays = delays or Delays()
    tables = tables_of(models, placement.configs())
    layout, n, groups = layout_of(placement, tables), len(workload), len(placement.groups)
    slos = np.array([*(model.slo_s for model in models), 0.0])[workload.model]
    outcome = Outcome(np.empty(n), np.zeros(n, np.bool_), np.full(n, NOBODY, np.int32))
    most, sizes = tables.latency.shape[2], sizes_of(models)
    slo = slos if slo is None else slo
    latency, drawn = _raw(models, placement, most, sizes), drawn_delays(delays, seed)
    clock, outstanding = np.zeros((groups, most)), np.zeros(groups, np.int64)
    if len(sizes) > 1:
        system = events_batching.System(
            workload.arrival,
            workload.model,
            slo,
            *layout,
            tables.stages,
            latency,
            np.stack([shares(each, sizes) for each in latency]),
            sizes,
            drawn,
            delays.margin_s,
            clock,
            outstanding,
            np.zeros((len(models), groups), np.int64),
            np.full(groups, NOBODY),
            np.full(groups, NOBODY),
            np.zeros(n, np.int64),
            np.zeros(n, np.int64),
            np.zeros(n, np.bool_),
            *outcome,
        )
        events_batching.play(system)
        return outcome
    play(
        _System(
            workload.arrival,
            workload.model,
            slo,
            *layout,
            tables.stages,
            latency[:, :, 0].transpose(1, 0, 2).copy(),
            drawn,
            delays.margin_s,
            clock,
            clock.copy(),
            outstanding,
            np.zeros(n, np.int64),
            *outcome,
        )
    )
    return outcome


def drawn_delays(delays: Delays, seed: int) -> Floats:
    """Return the delays in seconds: (to the controller, to the group, to the stages) x DRAWS."""
    means = np.array([[delays.http_s], [delays.dispatch_s], [delays.backend_s]])
    noise = np.random.default_rng(seed).normal(0, delays.deviation_s, (3, DRAWS))
    return np.abs(means + noise)


def _raw(models: tuple[Model, ...], placement: Placement, most: int, sizes: Ints) -> Floats:
    """Return stages' seconds as profiled: (configs, models, sizes, stages)."""
    configs = placement.configs()
    latency = np.full((len(configs), len(models), len(sizes), most), np.inf)
    for c, config in enumerate(configs):
        for m, model in enumerate(models):
            record = model.profile.records.get(config)
            for b, size in enumerate(sizes.tolist() if record is not None else ()):
                if record is not None and size in record.stage_s:
                    latency[c, m, b, : config.pp] = record.stage_s[size]
    return latency
