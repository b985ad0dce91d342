"""What a rank posts on which communicator, and for what its host waits, pass by pass.

The order in which `vocab_parallel.run` carries out a schedule, without tensors. Where a position of
the pipeline is shared by a team, its all-reduces are left out: the team's ranks run one program.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import NamedTuple

from vocab_parallel.plan.collectives import VOCABULARY, Broadcast, broadcasts
from vocab_parallel.plan.messages import Message, Receipts, outgoing
from vocab_parallel.plan.passes import Pass, Schedule

Communicator = Callable[[int, int], Hashable]
"""The communicator of the messages from one rank to another."""

EVERYONE = "vocabulary"
"""The communicator of the collectives."""


class Operation(NamedTuple):
    """A message or a collective; the same value on all the ranks that take part."""

    queue: Hashable
    what: str
    item: str
    ranks: tuple[int, ...]
    """The source and the target of a message; all ranks, for a collective."""
    stage: int = 0
    """The stage that a message is for: a way may carry a micro-batch once for each chunk."""

    def words(self, rank: int) -> str:
        """Return what a rank does: send F3 to 2."""
        if self.what != "message":
            return f"{self.what} {self.item}"
        source, target = self.ranks
        if rank == source:
            return f"send {self.item} to {target}"
        return f"recv {self.item} from {source}"


class Action(NamedTuple):
    """One thing that a rank's host does: post an operation, or wait until it is over."""

    operation: Operation
    waits: bool = False


def pair(source: int, target: int) -> Hashable:
    """Return the communicator that a message has in a run: one per pair and direction."""
    return source, target


def actions(schedule: Schedule, rank: int, communicator: Communicator = pair) -> list[Action]:
    """Return what a rank's host does in one iteration, in order."""
    return list(_Rank(schedule, rank, communicator).run())


class _Rank:
    def __init__(self, schedule: Schedule, rank: int, communicator: Communicator) -> None:
        self.schedule, self.rank, self.communicator = schedule, rank, communicator
        self.receipts = Receipts(schedule, rank)
        self.due: deque[Broadcast] = deque(broadcasts(schedule))
        self.sources: set[tuple[str, int]] = set()
        self.last = schedule.place(schedule.stages - 1)[0]
        self.trains = any(item.kind == "B" for item in schedule.programs[rank])
        self.left: list[Operation] = []

    def run(self) -> Iterator[Action]:
        over = 0
        for item in self.schedule.programs[self.rank]:
            yield from self._broadcasts(over)
            yield from self._do(item)
            over += item.kind in VOCABULARY
        yield from self._broadcasts(over)
        for operation in self.left:
            yield Action(operation, waits=True)

    def _do(self, item: Pass) -> Iterator[Action]:
        match item.kind:
            case "F" | "B":
                yield from self._arrival(item)
                yield from self._result(item)
            case "IF":
                yield self._post(self._all("all-reduce", item))
            case "S":
                yield from self._output(item)
            case "T" if self.schedule.barriers > 1:
                yield self._post(self._all("all-reduce", item))
            case "IB":
                yield Action(self._broadcast("input gradient", item.batch), waits=True)
            case _:
                pass

    def _arrival(self, item: Pass) -> Iterator[Action]:
        """Wait for what a pass of the transformer layers begins with."""
        forward = item.kind == "F"
        stage = self.schedule.stage(self.rank, item.chunk)
        before = stage - 1 if forward else stage + 1
        if 0 <= before < self.schedule.stages:
            source = self.schedule.place(before)[0]
            if source != self.rank:
                message = Message(item.kind, item.batch, stage)
                for one in self.receipts.take(source, message):
                    yield Action(self._message(source, self.rank, one))
                yield Action(self._message(source, self.rank, message), waits=True)
        elif self.schedule.barriers:
            maker = Pass("IF", item.batch) if forward else self._gradient(item.batch)
            yield Action(self._all("all-reduce", maker), waits=True)

    def _gradient(self, batch: int) -> Pass:
        """Return the pass that posts the sum of the output layer's gradient."""
        return Pass("S" if self.schedule.barriers == 1 else "T", batch)

    def _result(self, item: Pass) -> Iterator[Action]:
        goes = outgoing(self.schedule, self.rank, item)
        if goes is not None:
            yield self._post(self._message(self.rank, *goes))
        stage = self.schedule.stage(self.rank, item.chunk)
        if item.kind == "F" and stage == self.schedule.stages - 1:
            self.sources.add(("hidden", item.batch))
        if item.kind == "B" and stage == 0:
            self.sources.add(("input gradient", item.batch))

    def _output(self, item: Pass) -> Iterator[Action]:
        if item.chunk == 0:
            yield Action(self._broadcast("hidden", item.batch), waits=True)
        if self.schedule.barriers == 3:
            maximum = self._all("all-reduce", Pass("S", item.batch))
            yield Action(maximum, waits=item.chunk == 1)
            if item.chunk == 0:
                return
        gathered = self._all("all-gather", item)
        yield Action(gathered)
        yield Action(gathered, waits=True)
        if self.schedule.barriers == 1 and self.trains:
            yield self._post(self._all("all-reduce", item))

    def _broadcasts(self, over: int) -> Iterator[Action]:
        while self.due and self.due[0].after <= over:
            coming = self.due[0]
            if coming.root == self.rank and (coming.what, coming.batch) not in self.sources:
                return
            self.due.popleft()
            yield Action(self._broadcast(coming.what, coming.batch))

    def _post(self, operation: Operation) -> Action:
        """Post what is waited for at the end of the iteration at the latest."""
        self.left.append(operation)
        return Action(operation)

    def _message(self, source: int, target: int, message: Message) -> Operation:
        item = f"{message.kind}{message.batch}"
        way = self.communicator(source, target)
        return Operation(way, "message", item, (source, target), message.stage)

    def _broadcast(self, what: str, batch: int) -> Operation:
        return Operation(EVERYONE, "broadcast", f"{what}{batch}", tuple(range(self.schedule.ranks)))

    def _all(self, what: str, item: Pass) -> Operation:
        name = f"{item.kind}{item.batch}"
        return Operation(EVERYONE, what, name, tuple(range(self.schedule.ranks)))
