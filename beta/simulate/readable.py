"""The fast simulator once more, to be read: the twin that tests hold the kernel equal to."""

from collections.abc import Sequence

import numpy as np

from beta.inputs.model import Model
from beta.inputs.playing import Dispatch
from beta.inputs.workload import Workload
from beta.plan.placement import Placement
from beta.simulate.fast import NOBODY, Outcome
from beta.simulate.tables import OVERHEAD_S, STAGE_PENALTY


class _Group:
    """A pipeline: when each of its stages gets free, and how long each model takes in each."""

    def __init__(self, pp: int, stage_s: dict[int, list[float]]) -> None:
        self.free = [0.0] * pp
        self.stage_s = stage_s

    def ends(self, model: int, now: float) -> list[float]:
        """Return when each stage would be done with a request that comes now."""
        ends = list[float]()
        for free, seconds in zip(self.free, self.stage_s[model], strict=True):
            now = max(now, free) + seconds
            ends.append(now)
        return ends


def _single(value: float) -> float:
    return float(np.float32(value))


def _groups(placement: Placement, models: Sequence[Model]) -> list[_Group]:
    made = list[_Group]()
    for group in placement.groups:
        slower = 1 + STAGE_PENALTY * group.config.pp
        records = {m: models[m].profile.records[group.config] for m in group.models}
        stage_s = {m: [_single(s * slower) for s in r.stage_s[1]] for m, r in records.items()}
        made.append(_Group(group.config.pp, stage_s))
    return made


def simulate(
    workload: Workload,
    placement: Placement,
    models: Sequence[Model],
    *,
    dispatch: Dispatch = "first_free",
) -> Outcome:
    """Return what becomes of every request, exactly as `fast.simulate` does."""
    groups = _groups(placement, models)
    finish, good, asked = list[float](), list[bool](), list[int]()
    for now, m in zip(workload.arrival.tolist(), workload.model.tolist(), strict=True):
        hosts = [g for g, group in enumerate(groups) if m in group.stage_s]
        served, chosen = now, NOBODY
        if hosts:
            slo = _single(models[m].slo_s)
            chosen = min(hosts, key=lambda g: groups[g].free[-1])
            ends = groups[chosen].ends(m, now)
            if dispatch == "deadline" and ends[-1] + OVERHEAD_S - now > slo:
                chosen = min(hosts, key=lambda g: groups[g].ends(m, now)[-1] + OVERHEAD_S)
                ends = groups[chosen].ends(m, now)
            if ends[-1] + OVERHEAD_S - now <= slo:
                groups[chosen].free, served = ends, ends[-1] + OVERHEAD_S
        finish.append(served)
        good.append(served > now)
        asked.append(chosen)
    return Outcome(np.array(finish, float), np.array(good, bool), np.array(asked, np.int32))
