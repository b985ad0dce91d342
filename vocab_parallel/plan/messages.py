"""Point-to-point messages of a schedule: who sends what to whom, and when receives are posted.

A receiver posts its receives from a rank in the order of that rank's program, so that no tags are
needed. Messages of each pair of ranks and direction have a communicator of their own: on one that
more ranks shared, a send would queue behind a receive whose sender may wait for that very send.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from vocab_parallel.plan.passes import Pass, Schedule

AHEAD = 2
"""Receives posted per neighbour before they are needed."""


class Message(NamedTuple):
    """The result of a pass of the sender, of use to a stage of the receiver."""

    kind: str
    batch: int
    stage: int
    """The stage that receives."""


def ways(schedule: Schedule) -> list[tuple[int, int]]:
    """Return the (source, target) between which messages go: each has its own communicator."""
    ranks = schedule.ranks
    found = [way for low in range(ranks - 1) for way in ((low, low + 1), (low + 1, low))]
    if schedule.layout == "loop" and schedule.chunks > 1 and ranks > 2:
        found += [(ranks - 1, 0), (0, ranks - 1)]
    return found


def outgoing(schedule: Schedule, rank: int, item: Pass) -> tuple[int, Message] | None:
    """Return the rank that a pass's result goes to, and as what; None where it stays here."""
    if item.kind not in ("F", "B"):
        return None
    stage = schedule.stage(rank, item.chunk) + (1 if item.kind == "F" else -1)
    if not 0 <= stage < schedule.stages:
        return None
    target = schedule.place(stage)[0]
    return None if target == rank else (target, Message(item.kind, item.batch, stage))


class Receipts:
    """Which receives a rank posts when it needs a message: those before it, and a few ahead."""

    def __init__(self, schedule: Schedule, rank: int) -> None:
        self.expected: dict[int, deque[Message]] = {}
        self.posted: set[Message] = set()
        for source, program in enumerate(schedule.programs):
            found = [outgoing(schedule, source, item) for item in program]
            mine = [message for target, message in filter(None, found) if target == rank]
            if mine:
                self.expected[source] = deque(mine)

    def take(self, source: int, message: Message) -> list[Message]:
        """Return the receives to post from a rank, in order, when a message of it is needed."""
        waiting, found = self.expected[source], list[Message]()
        while message not in self.posted:
            found.append(self._post(waiting))
        self.posted.remove(message)
        ahead = sum(1 for posted in self.posted if posted.kind == message.kind)
        while waiting and ahead < AHEAD:
            found.append(self._post(waiting))
            ahead += 1
        return found

    def _post(self, waiting: deque[Message]) -> Message:
        message = waiting.popleft()
        self.posted.add(message)
        return message
