"""Is a schedule right? Complete, free of deadlock, every model updated once, memory bounded.

Sums over all stages must also come in one order on every rank: a collective has no tag, so two
ranks that meet in different ones would add up what does not belong together.
"""

from collections import Counter

from puzzle.plan.fused import most_live
from puzzle.plan.passes import Pass, Schedule
from puzzle.plan.play import play


def find_faults(schedule: Schedule) -> tuple[str, ...]:
    """Return one line per fault; empty where the schedule is right."""
    faults = _incomplete(schedule)
    if not faults:
        faults = _stalls(schedule) or [*_crossed(schedule), *_too_many_live(schedule)]
    return tuple(faults)


def peak_live(schedule: Schedule, model: str) -> tuple[int, ...]:
    """Return the most micro-batches of a model that wait for their backward pass, by rank."""
    peaks: list[int] = []
    for program in schedule.programs:
        live = peak = 0
        for item in program:
            if item.model == model:
                live += (item.kind == "F") - (item.kind == "B")
            peak = max(peak, live)
        peaks.append(peak)
    return tuple(peaks)


def _incomplete(schedule: Schedule) -> list[str]:
    expected = {
        Pass(kind, model, batch)
        for model in schedule.models
        for kind in ("F", "B")
        for batch in range(schedule.batches)
    } | {Pass(kind, model) for model in schedule.models for kind in ("R", "N", "U")}
    faults: list[str] = []
    if len(schedule.programs) != schedule.stages:
        faults.append(f"{len(schedule.programs)} programs for {schedule.stages} ranks")
    for rank, program in enumerate(schedule.programs):
        counts = Counter(program)
        wrong = [item for item in {*expected, *counts} if counts[item] != (item in expected)]
        faults += [
            f"rank {rank} runs {item} {counts[item]} times, expected {int(item in expected)}"
            for item in sorted(wrong)
        ]
    return faults


def _stalls(schedule: Schedule) -> list[str]:
    played = play(schedule, lambda rank, item: 1.0)
    return [
        f"deadlock: rank {rank} stops at {program[len(ends)]}"
        for rank, (program, ends) in enumerate(zip(schedule.programs, played.ends, strict=True))
        if len(ends) < len(program)
    ]


def _crossed(schedule: Schedule) -> list[str]:
    orders = [
        " before ".join(item.model for item in program if item.kind == "N")
        for program in schedule.programs
    ]
    return [
        f"rank {rank} sums the norms {order}, rank 0 {orders[0]}"
        for rank, order in enumerate(orders)
        if order != orders[0]
    ]


def _too_many_live(schedule: Schedule) -> list[str]:
    """Hold every model to 1F1B's P - p micro-batches on its stage p, and fused to its bound."""
    return [
        f"rank {rank} holds {live} micro-batches of the {model}, {schedule.name} needs {most}"
        for model in schedule.models
        for rank, live in enumerate(peak_live(schedule, model))
        if live > (most := _most(schedule, schedule.stage(model, rank)))
    ]


def _most(schedule: Schedule, stage: int) -> int:
    if schedule.name == "fused":
        return most_live(schedule.stages, stage)
    return schedule.stages - stage
