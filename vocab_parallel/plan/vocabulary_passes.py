"""The passes of the sharded vocabulary layers put into any pipeline's order of F, B and W.

The pipeline is carried out on a clock. Once a vocabulary pass can run anywhere it can run
everywhere, and it enters one list that is common to all ranks; each rank carries that list out
before it goes on with its own. So all ranks enter the collectives in one order, and none begins a
pass between them that waits for what another rank does after them: no deadlock, whatever blocks.
"""

from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from itertools import count

import msgspec

from vocab_parallel.plan.costs import Costs
from vocab_parallel.plan.dependencies import EVERY
from vocab_parallel.plan.passes import Pass, Schedule
from vocab_parallel.plan.wants import Wants, names

_UNDER_WAY = 0.5
"""How long a collective takes on the clock, in forward passes of a chunk."""
_INPUTS_AHEAD = 3
"""Micro-batches whose IF runs before the first stage comes to them."""


def with_vocabulary_passes(schedule: Schedule, barriers: int, costs: Costs) -> Schedule:
    """Return a schedule of F, B and W with IF, S, T and IB for 1 or 2 barriers.

    The orders of F, B and W stay; they should hold one forward pass more before the first B for
    every barrier. The vocabulary passes themselves take no time on the clock.
    """
    writer = _Writer(msgspec.structs.replace(schedule, barriers=barriers), costs)
    writer.run()
    programs = tuple(map(tuple, writer.written))
    return msgspec.structs.replace(writer.schedule, programs=programs)


class _Writer:
    """`common` has the vocabulary passes that can run; `taken` how many of them each rank has."""

    def __init__(self, schedule: Schedule, costs: Costs) -> None:
        self.schedule = schedule
        backward = costs.backward / 2 if schedule.split_backward else costs.backward
        self.cost = {"F": costs.forward, "B": backward, "W": costs.backward / 2}
        self.delay = _UNDER_WAY * costs.forward
        self.now, self.numbers = 0.0, count()
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.common: list[Pass] = []
        self.taken = [0] * schedule.ranks
        self.places = [0] * schedule.ranks
        self.busy: set[int] = set()
        self.wants = Wants(schedule)
        self.gives = [
            {name: self.wants.met_by(rank, *name) for name in names(program)}
            for rank, program in enumerate(schedule.programs)
        ]
        self.there: set[int] = set()
        self.waiting: dict[int, list[int]] = {}
        self.ends: dict[Pass, int] = {}
        self.written: list[list[Pass]] = [[] for _ in range(schedule.ranks)]

    def run(self) -> None:
        """Carry all out; every rank's list is then in `written`."""
        for batch in range(min(_INPUTS_AHEAD, self.schedule.batches)):
            self.common.append(Pass("IF", batch))
        for rank in range(self.schedule.ranks):
            self.go_on(rank)
        while self.events:
            self.now, _, happens = heappop(self.events)
            happens()

    def later(self, delay: float, happens: Callable[[], None]) -> None:
        heappush(self.events, (self.now + delay, next(self.numbers), happens))

    def go_on(self, rank: int) -> None:
        """Begin a rank's next pass, if it is free and can."""
        item = None if rank in self.busy else self.next_of(rank)
        if item is None:
            return
        self.busy.add(rank)
        self.written[rank].append(item)
        self.later(self.cost.get(item.kind, 0.0), partial(self.end, rank, item))
        ahead = item.batch + _INPUTS_AHEAD
        if item == Pass("F", item.batch) and rank == 0 and ahead < self.schedule.batches:
            self.enter(Pass("IF", ahead))

    def next_of(self, rank: int) -> Pass | None:
        """Return the next pass of the common list, else of the rank's own; None if it must wait."""
        if self.taken[rank] < len(self.common):
            self.taken[rank] += 1
            return self.common[self.taken[rank] - 1]
        program, place = self.schedule.programs[rank], self.places[rank]
        if place == len(program):
            return None
        for need in self.wants.of(rank, program[place]):
            if need not in self.there:
                self.waiting.setdefault(need, []).append(rank)
                return None
        self.places[rank] += 1
        return program[place]

    def end(self, rank: int, item: Pass) -> None:
        self.busy.discard(rank)
        if item.kind in self.cost:
            for number in self.gives[rank][item.kind, item.chunk]:
                self.bring(number, item.batch)
            self.at_the_ends(rank, item)
        else:
            self.ends[item] = self.ends.get(item, 0) + 1
            if self.ends[item] == self.schedule.ranks:
                self.after_all(item)
        self.go_on(rank)

    def at_the_ends(self, rank: int, item: Pass) -> None:
        """Have the output layer follow the last stage's F, the input layer the first one's B."""
        stage, batch = self.schedule.stage(rank, item.chunk), item.batch
        if item.kind == "F" and stage == self.schedule.stages - 1:
            self.later(self.delay, partial(self.enter, Pass("S", batch)))
        if item.kind == "B" and stage == 0:
            self.later(self.delay, partial(self.enter, Pass("IB", batch)))

    def after_all(self, item: Pass) -> None:
        """Go on from a vocabulary pass that all ranks have had."""
        if item.kind == "S":
            self.later(self.delay, partial(self.enter, Pass("T", item.batch)))
        for number in self.wants.met_by(EVERY, item.kind, item.chunk):
            self.later(self.delay, partial(self.bring, number, item.batch))

    def enter(self, item: Pass) -> None:
        self.common.append(item)
        for rank in range(self.schedule.ranks):
            self.go_on(rank)

    def bring(self, number: int, batch: int) -> None:
        need = number + batch * self.wants.count
        self.there.add(need)
        for rank in self.waiting.pop(need, ()):
            self.go_on(rank)
