"""Is a schedule right? Complete, free of deadlock, and within the memory its method promises.

The rules of Vocabulary Parallelism §4-5; they hold for any schedule, also one read from a file.
"""

from collections import Counter
from itertools import pairwise

from vocab_parallel.plan.dependencies import needs
from vocab_parallel.plan.passes import Kind, Pass, Schedule
from vocab_parallel.plan.play import Played, play
from vocab_parallel.plan.posts import Communicator, pair
from vocab_parallel.plan.queues import find_stall
from vocab_parallel.plan.zero_bubble_v import METHOD_OF_BARRIERS

_VOCABULARY: tuple[Kind, ...] = ("IF", "S", "T", "IB")


def find_faults(schedule: Schedule, communicator: Communicator = pair) -> tuple[str, ...]:
    """Return one line per fault; empty where the schedule is right.

    It must run through even if every collective blocks all ranks at its pass (P2P is buffered),
    so that a runtime may carry out the collectives in any manner; and where nothing is buffered and
    every communicator is one queue on each rank, with messages on `communicator`.
    """
    faults = [*_incomplete(schedule), *_collective_orders(schedule)]
    if not faults:
        faults += _stalls(schedule) or _too_many_live(schedule) or _broken_meetings(schedule)
    return tuple(faults) or find_stall(schedule, communicator)


def peak_live(schedule: Schedule) -> tuple[int, ...]:
    """Return the most stage inputs that each rank holds: forward passes not yet followed by B.

    With several chunks the unit is one of them.
    """
    return tuple(map(_peak, schedule.programs))


def most_live(schedule: Schedule, rank: int) -> int:
    """Return the micro-batches (of several chunks: chunks) that a rank may hold, for any m.

    1F1B and ZB-H1: p - r + barriers, one interval per barrier on the p - r of the plain schedule;
    interlaced: floor(3p/2) - r; V-Half: p + 2 + 2 x barriers; ZB-V: 2p + 2 x barriers; interleaved:
    2 (p - r - 1) + (v - 1) p + 1 + barriers.
    """
    ranks = schedule.ranks
    if schedule.chunks > 1 and schedule.layout == "v":
        plain = 2 * ranks if schedule.method in METHOD_OF_BARRIERS.values() else ranks + 2
        return plain + 2 * schedule.barriers
    if schedule.layout == "loop":
        return 2 * (ranks - rank - 1) + (schedule.chunks - 1) * ranks + 1 + schedule.barriers
    if schedule.synchronous:
        return 3 * ranks // 2 - rank
    return ranks - rank + schedule.barriers


def _peak(program: tuple[Pass, ...]) -> int:
    live = peak = 0
    for item in program:
        live += (item.kind == "F") - (item.kind == "B")
        peak = max(peak, live)
    return peak


def _kinds(schedule: Schedule) -> tuple[Kind, ...]:
    weight: tuple[Kind, ...] = ("W",) if schedule.split_backward else ()
    return ("F", "B", *weight, *(_VOCABULARY if schedule.barriers else ()))


def _incomplete(schedule: Schedule) -> list[str]:
    expected = {
        Pass(kind, batch, chunk)
        for kind in _kinds(schedule)
        for chunk in range(schedule.parts(kind))
        for batch in range(schedule.batches)
    }
    faults: list[str] = []
    for rank, program in enumerate(schedule.programs):
        counts = Counter(program)
        wrong = [item for item in {*expected, *counts} if counts[item] != (item in expected)]
        for item in sorted(wrong, key=lambda item: (item.kind, item.batch, item.chunk)):
            label = schedule.label(item)
            faults.append(
                f"rank {rank} runs {label} {counts[item]} times, expected {int(item in expected)}"
            )
    if len(schedule.programs) != schedule.ranks:
        faults.append(f"{len(schedule.programs)} programs for {schedule.ranks} ranks")
    return faults


def _broken_meetings(schedule: Schedule) -> list[str]:
    """Return where a rank leaves a synchronous output layer: its T must follow its S at once."""
    if not schedule.synchronous:
        return []
    return [
        f"rank {rank} runs {schedule.label(after)} between {schedule.label(item)} and its T,"
        " where all ranks stay together"
        for rank, program in enumerate(schedule.programs)
        for item, after in pairwise(program)
        if item.kind == "S" and after != Pass("T", item.batch)
    ]


def _collective_kinds(schedule: Schedule) -> frozenset[Kind]:
    """Return the kinds at which ranks communicate: with one barrier T needs nobody."""
    if not schedule.barriers:
        return frozenset()
    return frozenset(_VOCABULARY if schedule.barriers > 1 else ("IF", "S", "IB"))


def _collective_orders(schedule: Schedule) -> list[str]:
    kinds = _collective_kinds(schedule)
    orders = [[item for item in program if item.kind in kinds] for program in schedule.programs]
    return [
        f"rank {rank} enters the collectives in another order than rank 0"
        for rank, order in enumerate(orders)
        if order != orders[0]
    ]


def _stalls(schedule: Schedule) -> list[str]:
    """Play with blocking collectives; name the pass at which each stuck rank waits."""
    unit: dict[tuple[Kind, int], float] = {
        (kind, chunk): 1.0 for kind in _kinds(schedule) for chunk in range(schedule.parts(kind))
    }
    played: Played = play(schedule, [unit] * schedule.ranks, {}, meets=_collective_kinds(schedule))
    faults: list[str] = []
    for rank, (program, ends) in enumerate(zip(schedule.programs, played.ends, strict=True)):
        if len(ends) < len(program):
            item = program[len(ends)]
            waits = ", ".join(schedule.label(need.item) for need in needs(schedule, rank, item))
            label = schedule.label(item)
            faults.append(f"deadlock: rank {rank} stops at {label}, which needs {waits or 'all'}")
    return faults


def _too_many_live(schedule: Schedule) -> list[str]:
    unit = "chunks" if schedule.chunks > 1 else "micro-batches"
    return [
        f"rank {rank} holds {live} {unit}, {schedule.method} promises {most}"
        for rank, live in enumerate(peak_live(schedule))
        if live > (most := most_live(schedule, rank))
    ]
