"""When the broadcasts are posted: in one order on all ranks, as early as their source allows.

Collectives of one group must be posted in the same order everywhere. The vocabulary passes come in
one order on all ranks, so "after the n-th vocabulary pass" is the same moment for all of them.
"""

from typing import Literal

import msgspec

from vocab_parallel.plan.passes import Kind, Pass, Schedule

VOCABULARY: frozenset[Kind] = frozenset({"IF", "S", "T", "IB"})


class Broadcast(msgspec.Struct, frozen=True, order=True):
    """One micro-batch's X (to S) or gradient of the input (to IB), from its root to all ranks.

    It is posted when `after` vocabulary passes are over (and, on the root, its source is).
    """

    after: int
    what: Literal["hidden", "input gradient"]
    batch: int
    root: int


def broadcasts(schedule: Schedule) -> tuple[Broadcast, ...]:
    """Return all broadcasts of an iteration in the order in which every rank posts them."""
    if not schedule.barriers:
        return ()
    last, chunk = schedule.place(schedule.stages - 1)
    posted = [
        Broadcast(after, "hidden", item.batch, last)
        for item, after in _counted(schedule, last, "F", chunk)
    ]
    if any(item.kind == "IB" for item in schedule.programs[0]):
        posted += [
            Broadcast(after, "input gradient", item.batch, 0)
            for item, after in _counted(schedule, 0, "B", 0)
        ]
    return tuple(sorted(posted))


def _counted(schedule: Schedule, rank: int, kind: Kind, chunk: int) -> list[tuple[Pass, int]]:
    """Return a rank's passes of a kind with the vocabulary passes before each."""
    found: list[tuple[Pass, int]] = []
    before = 0
    for item in schedule.programs[rank]:
        before += item.kind in VOCABULARY
        if item.kind == kind and item.chunk == chunk:
            found.append((item, before))
    return found
