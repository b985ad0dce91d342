"""Placements that take turns: Clockwork++ (AlpaServe §6.2's strengthened baseline), re-planning."""

import numpy as np

from beta.inputs.arrays import Floats
from beta.inputs.playing import Dispatch
from beta.inputs.profile import Config
from beta.inputs.workload import Workload
from beta.plan.placement import Placement, Timetable
from beta.simulate.fast import Outcome, simulate
from beta.simulate.tables import Tables


def segments(workload: Workload, timetable: Timetable, *, fresh: bool) -> list[tuple[int, int]]:
    """Return (first request, placement) of every run of requests that one placement serves.

    A request is served by the last placement that has started when it comes. With `fresh` (the
    original) a placement takes over after its start only, and one request passes one start at most.
    """
    starts = timetable.start_s
    if not fresh:
        owner = np.maximum(np.searchsorted(starts, workload.arrival, side="right") - 1, 0)
        cuts = np.flatnonzero(np.diff(owner, prepend=-1))
        return [(int(cut), int(owner[cut])) for cut in cuts]
    found, low = [(0, 0)], 0
    for following in range(1, len(starts)):
        after = int(np.searchsorted(workload.arrival, starts[following], side="right"))
        low = max(after, low + 1 if following > 1 else after)
        if low >= len(workload):
            break
        found.append((low, following))
    return found


def simulate_timetable(
    workload: Workload,
    timetable: Timetable,
    tables: Tables,
    *,
    fresh: bool = False,
    dispatch: Dispatch = "first_free",
) -> Outcome:
    """Return what becomes of every request.

    Groups take the devices in order. A device stays busy with what it runs when placements
    change; with `fresh` (the original) it forgets that work. Then it loads the weights it lacks,
    if the timetable says how fast.
    """
    parts, busy = list[Outcome](), np.zeros(0)
    before: Placement | None = None
    runs = segments(workload, timetable, fresh=fresh)
    ends = [first for first, _ in runs[1:]] + [len(workload)]
    for (first, number), end in zip(runs, ends, strict=True):
        placement = timetable.placements[number]
        if before is not None:
            loads = _loads_s(before, placement, tables, timetable.load_bytes_s)
            busy = np.append(busy, np.zeros(len(loads) - len(busy)))
            busy = np.maximum(busy, np.where(loads > 0, timetable.start_s[number], 0)) + loads
        before = placement
        clock = _clock_of(placement, np.zeros(0) if fresh else busy, tables.latency.shape[2])
        piece = workload[first:end]
        parts.append(simulate(piece, placement, tables, dispatch=dispatch, clock=clock))
        busy = _busy_of(placement, clock)
    if not parts:
        return simulate(workload, timetable.placements[0], tables)
    return Outcome(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _clock_of(placement: Placement, busy: Floats, most: int) -> Floats:
    """Return when each group's stages get free, from when each device does."""
    clock, device = np.zeros((len(placement.groups), most)), 0
    busy = np.append(busy, np.zeros(max(placement.devices - len(busy), 0)))
    for g, group in enumerate(placement.groups):
        for k in range(group.config.pp):
            clock[g, k] = busy[device : device + group.config.op].max()
            device += group.config.op
    return clock


def _loads_s(before: Placement, after: Placement, tables: Tables, bytes_s: float) -> Floats:
    """Return how long each device loads at a change; a group keeps what it had where it stands."""
    number = {config: c for c, config in enumerate(tables.configs)}
    held = dict(_standing(before))
    seconds = np.zeros(max(before.devices, after.devices))
    for (first, config), models in _standing(after):
        new = [m for m in models if m not in held.get((first, config), ())]
        lacking = float(sum(tables.weight[m, number[config]] for m in new))
        seconds[first : first + config.devices] = lacking / bytes_s
    return seconds


def _standing(placement: Placement) -> list[tuple[tuple[int, Config], tuple[int, ...]]]:
    """Return each group's first device and config, and its models."""
    found, device = list[tuple[tuple[int, Config], tuple[int, ...]]](), 0
    for group in placement.groups:
        found.append(((device, group.config), group.models))
        device += group.config.devices
    return found


def _busy_of(placement: Placement, clock: Floats) -> Floats:
    return np.concatenate(
        [
            np.repeat(clock[g, : group.config.pp], group.config.op)
            for g, group in enumerate(placement.groups)
        ]
    )
