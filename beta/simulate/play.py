"""Play a placement on a workload as an experiment says: which simulator, which dispatch."""

import math

from beta.inputs.model import Model
from beta.inputs.playing import SimulatorSettings
from beta.inputs.workload import Workload
from beta.plan.placement import Timetable
from beta.plan.switches import Switches
from beta.simulate import batching, events, fast
from beta.simulate.fast import Outcome
from beta.simulate.tables import tables_of
from beta.simulate.windows import simulate_timetable
from common.errors import InputError


def play(
    workload: Workload,
    timetable: Timetable,
    models: tuple[Model, ...],
    settings: SimulatorSettings,
    switches: Switches,
    *,
    seed: int = 0,
) -> Outcome:
    """Return what becomes of every request."""
    if settings.kind != "fast" and len(timetable.placements) != 1:
        raise InputError(f"simulator.kind {settings.kind!r} plays one placement, not several")
    placement = timetable.placements[0]
    if settings.kind == "events":
        return events.simulate(workload, placement, models, delays=settings.delays, seed=seed)
    if settings.kind == "batching":
        return batching.simulate(workload, placement, models, idle_break=switches.idle_break)
    configs = dict.fromkeys(c for p in timetable.placements for c in p.configs())
    tables = tables_of(models, tuple(configs))
    if len(timetable.placements) == 1:
        return fast.simulate(workload, placement, tables, dispatch=settings.dispatch)
    return simulate_timetable(
        workload,
        timetable,
        tables,
        fresh=switches.fresh_windows and timetable.load_bytes_s == math.inf,
        dispatch=settings.dispatch,
    )
