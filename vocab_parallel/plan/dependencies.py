"""What every pass waits for: the rules that hold for all schedules.

Vocabulary Parallelism §3-4: S after the last stage's F; T after all S (barrier C1); the last
stage's B after all S (one barrier) or after all T (two, three).
"""

from typing import Literal, NamedTuple

from vocab_parallel.plan.passes import Pass, Schedule

Link = Literal["local", "p2p", "inputs", "hidden", "statistics", "gradient", "input gradient"]
"""How the result gets to the waiting rank. inputs: all-reduce of the embeddings; hidden: broadcast
of the last stage's output X (C0); statistics: all-reduce of maxima and sums (C1); gradient: the
reduce of X's gradient (C2; with one barrier part of C1); input gradient: broadcast from rank 0."""

EVERY = -1
"""The rank of a need that all ranks' passes must meet."""


class Need(NamedTuple):
    """One pass (of one rank, or of EVERY rank) that must be over, and the way of its result."""

    rank: int
    item: Pass
    link: Link


def needs(schedule: Schedule, rank: int, item: Pass) -> list[Need]:
    """Return what one pass of one rank waits for, beside the passes before it in its program."""
    batch = item.batch
    match item.kind:
        case "F":
            return _forward(schedule, rank, item)
        case "B":
            return _backward(schedule, rank, item)
        case "W":
            return [Need(rank, Pass("B", batch, item.chunk), "local")]
        case "S" if item.chunk == 0:
            source, chunk = schedule.place(schedule.stages - 1)
            return [Need(source, Pass("F", batch, chunk), "hidden")]
        case "S":
            return [Need(EVERY, Pass("S", batch), "statistics")]
        case "T":
            return [Need(EVERY, Pass("S", batch, schedule.output_parts - 1), "statistics")]
        case "IB":
            return [Need(0, Pass("B", batch), "input gradient")]
        case "IF":
            return []


def _forward(schedule: Schedule, rank: int, item: Pass) -> list[Need]:
    stage = schedule.stage(rank, item.chunk)
    if stage:
        return [_neighbour(schedule, rank, item, stage - 1)]
    return [Need(EVERY, Pass("IF", item.batch), "inputs")] if schedule.barriers else []


def _backward(schedule: Schedule, rank: int, item: Pass) -> list[Need]:
    stage = schedule.stage(rank, item.chunk)
    own = Need(rank, Pass("F", item.batch, item.chunk), "local")
    if stage + 1 < schedule.stages:
        return [own, _neighbour(schedule, rank, item, stage + 1)]
    if schedule.barriers == 0:
        return [own]
    return [own, Need(EVERY, Pass("S" if schedule.barriers == 1 else "T", item.batch), "gradient")]


def _neighbour(schedule: Schedule, rank: int, item: Pass, stage: int) -> Need:
    source, chunk = schedule.place(stage)
    return Need(source, Pass(item.kind, item.batch, chunk), "local" if source == rank else "p2p")
