"""What answering a request takes at least, by simulator: what `bound` relaxes."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from beta.inputs.arrays import Floats
from beta.inputs.model import Model
from beta.inputs.profile import Config
from beta.plan.problem import Problem
from beta.simulate.events import drawn_delays
from beta.simulate.tables import OVERHEAD_S, STAGE_PENALTY, rounded

SLACK = 1 + 1e-9
"""For rounding errors, upwards."""


class Demand(NamedTuple):
    """Per model, and the part of a request's time in which no device may work on it."""

    least_work_s: Floats
    """Device-seconds; infinite where no answer can be in time."""
    least_bytes: Floats
    """Bytes of all devices of a group together; infinite likewise."""
    slo_s: Floats
    lead_s: float
    """From a request's arrival on."""
    tail_s: float
    """Up to its deadline."""


class Way(NamedTuple):
    """A config and batch size in which a model can answer in time."""

    config: Config
    batch: int
    seconds: float
    """Through the stages, nothing else in them."""


def demand(problem: Problem) -> Demand:
    """Return the least that answers take where the problem's simulator plays them.

    *fast*: stages take the profile's seconds with the penalty for depth, and 11 ms come after the
    last one: the window ends so much before the deadline. *batching*: the 11 ms come before the
    first stage, when the whole batch is there; a request's part of the work is the batch's over its
    size, and b requests can only be together if b in a row come within the time that the target
    leaves beside the stages. A batch runs when its last request is there and ends by its first
    one's deadline, so within the windows of all. *events*: stages take the
    profile's seconds; a request is at its group after the two delays before it, where admission
    leaves its margin free, and at its first stage after the third; the least that are drawn count.
    With batch sizes a request's part is likewise the batch's over its size, within the request's
    own window; how close together others come is not asked, as some of them may be late.
    """
    settings, kind = problem.playing, problem.kind
    slo = np.array([model.slo_s for model in problem.models])
    lead, tail, before_s = 0.0, OVERHEAD_S, OVERHEAD_S
    if kind == "events":
        http, dispatch, backend = drawn_delays(settings.delays, problem.seed).min(axis=1)
        lead, tail = float(http + dispatch + backend), 0.0
        before_s = float(max(http + dispatch + settings.delays.margin_s, lead))
    else:
        slo = rounded(slo)
    if kind == "batching":
        lead, tail = OVERHEAD_S, 0.0
    ways = [list(_ways(problem, m, float(slo[m]) - before_s)) for m in range(len(slo))]
    work = [min((w.seconds * w.config.op / w.batch for w in mine), default=np.inf) for mine in ways]
    bytes_ = [
        min((_bytes(problem.models[m], w) for w in mine), default=np.inf)
        for m, mine in enumerate(ways)
    ]
    return Demand(np.array(work), np.array(bytes_), slo, lead, tail)


def _bytes(model: Model, way: Way) -> float:
    return model.profile.memory_bytes(way.config) * way.config.devices


def _ways(problem: Problem, m: int, left_s: float) -> Iterator[Way]:
    """Yield the ways in which a model's stages take no longer than the target leaves."""
    model, kind = problem.models[m], problem.kind
    arrival = problem.train.arrival[problem.train.model == m]
    for config, record in model.profile.records.items():
        fits = record.memory_bytes <= problem.cluster.memory_bytes
        if not fits or config.devices > problem.cluster.devices or 1 not in record.stage_s:
            continue
        for batch in (1,) if kind == "fast" else record.stage_s:
            seconds = _seconds(record.stage_s[batch], config, kind == "events")
            spread = 0.0 if kind == "events" else _spread_s(arrival, batch)
            if seconds + spread <= left_s * SLACK:
                yield Way(config, batch, seconds)


def _seconds(stage_s: tuple[float, ...], config: Config, raw: bool) -> float:
    if raw:
        return float(sum(stage_s))
    return float(rounded(np.array(stage_s) * (1 + STAGE_PENALTY * config.pp)).sum())


def _spread_s(arrival: Floats, batch: int) -> float:
    """Return the least seconds in which so many requests come; infinite if there are fewer."""
    if batch == 1:
        return 0.0
    if len(arrival) < batch:
        return np.inf
    return float((arrival[batch - 1 :] - arrival[: len(arrival) - batch + 1]).min())
