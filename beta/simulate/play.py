"""Play a placement on a workload as an experiment says: which simulator, which dispatch."""

import math

from beta.inputs.model import Model
from beta.inputs.playing import SimulatorSettings, kind_of
from beta.inputs.workload import Workload
from beta.plan.placement import Timetable
from beta.plan.switches import Switches
from beta.simulate import batching, events, fast, readable, readable_batching
from beta.simulate.fast import Outcome
from beta.simulate.tables import tables_of
from beta.simulate.windows import simulate_timetable
from common.errors import InputError

FEW, FEW_BATCHED = 200_000, 40_000
"""Requests times groups that are played at once in plain Python, and not worth compiling for."""


def play(
    workload: Workload,
    timetable: Timetable,
    models: tuple[Model, ...],
    settings: SimulatorSettings,
    switches: Switches,
    *,
    seed: int = 0,
) -> Outcome:
    """Return what becomes of every request; by auto, placements that take turns are not batched."""
    kind, several = kind_of(settings, models), len(timetable.placements) > 1
    if several and settings.kind in ("batching", "events"):
        raise InputError(f"simulator.kind {settings.kind!r} plays one placement, not several")
    placement = timetable.placements[0]
    if kind == "events":
        return events.simulate(workload, placement, models, delays=settings.delays, seed=seed)
    asked = len(workload) * len(placement.groups)
    if kind == "batching" and not several:
        few = asked <= FEW_BATCHED
        batched = readable_batching.simulate if few else batching.simulate
        return batched(workload, placement, models, idle_break=switches.idle_break)
    if not several and asked <= FEW:
        return readable.simulate(workload, placement, models, dispatch=settings.dispatch)
    configs = dict.fromkeys(c for p in timetable.placements for c in p.configs())
    tables = tables_of(models, tuple(configs))
    if not several:
        return fast.simulate(workload, placement, tables, dispatch=settings.dispatch)
    return simulate_timetable(
        workload,
        timetable,
        tables,
        fresh=switches.fresh_windows and timetable.load_bytes_s == math.inf,
        dispatch=settings.dispatch,
    )
