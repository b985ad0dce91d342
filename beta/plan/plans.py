"""A plan as a value: the placement by names, with what the search saw; `plan` writes it as JSON.

`simulate` reads it back, and a serving system can: every group names its devices, its degrees and
its models with their latency targets.
"""

import math
from collections.abc import Sequence

import msgspec

from beta.inputs.cluster import GIB
from beta.inputs.model import Model
from beta.inputs.profile import Config
from beta.plan.placement import Group, Placement, Timetable, used_bytes
from common.errors import InputError


class ServedModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model instance; its number in the list is its index."""

    name: str
    profile: str
    slo_s: float | None = None
    """None: no target."""
    rate: float = 0.0


class PlannedGroup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Devices `first_device` to `first_device + op * pp - 1`, stage by stage."""

    first_device: int
    op: int
    pp: int
    models: tuple[str, ...]
    memory_gib: float = 0.0
    """Weights on each device, by the heaviest stage of each model."""
    attainment: float | None = None
    """Of the requests that this group was asked in training; None: it was asked none."""


class Period(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds from `start_s` on; most plans have one period."""

    start_s: float
    groups: tuple[PlannedGroup, ...]


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A complete placement."""

    schema: str = "beta-plan/1"
    experiment: str
    method: str
    question: str = ""
    """What it answers; a plan is searched again when its question has changed."""
    stand_in: bool = False
    devices: int
    memory_gib: float
    models: tuple[ServedModel, ...]
    periods: tuple[Period, ...]
    attainment: float
    """On the training workload."""
    load_gib_s: float | None = None
    """How fast devices load weights at a change of periods; None: at no cost."""


def check(plan: Plan, where: str = "plan") -> None:
    """Raise InputError unless there is a period, and op and pp of every group are 1 or more."""
    groups = [group for period in plan.periods for group in period.groups]
    if not plan.periods or any(min(group.op, group.pp) < 1 for group in groups):
        raise InputError(f"{where}: expected one or more periods, and op and pp of 1 or more")


def groups_of(
    placement: Placement,
    models: tuple[Model, ...],
    first: Sequence[int],
    attainments: Sequence[float | None] = (),
) -> tuple[PlannedGroup, ...]:
    """Return a placement's groups by names; `first` is each one's first device."""
    made = list[PlannedGroup]()
    for g, group in enumerate(placement.groups):
        made.append(
            PlannedGroup(
                first_device=first[g],
                op=group.config.op,
                pp=group.config.pp,
                models=tuple(models[m].name for m in group.models),
                memory_gib=used_bytes(group, models) / GIB,
                attainment=attainments[g] if attainments else None,
            )
        )
    return tuple(made)


def timetable_of(plan: Plan, models: tuple[Model, ...]) -> Timetable:
    """Return a plan's placements by the numbers of these models."""
    number = {model.name: m for m, model in enumerate(models)}
    unknown = {n for p in plan.periods for g in p.groups for n in g.models if n not in number}
    if unknown or not plan.periods:
        raise InputError(
            f"the plan places {', '.join(sorted(unknown)) or 'nothing'}, which the experiment does"
            " not have"
        )
    placements = [
        Placement(
            tuple(Group(Config(g.op, g.pp), tuple(number[n] for n in g.models)) for g in p.groups)
        )
        for p in plan.periods
    ]
    load = math.inf if plan.load_gib_s is None else plan.load_gib_s * GIB
    return Timetable(tuple(period.start_s for period in plan.periods), tuple(placements), load)
