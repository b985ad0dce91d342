"""A schedule carried out in time: every pass starts as soon as its rank and its inputs are there.

One engine for both uses: the checker plays with collectives that block, the simulator with the
times of a model (`vocab_parallel.simulate`). Links carry one thing at a time: the messages of a
pair of ranks and direction queue behind each other, and so do all collectives, as they do on one
NCCL communicator.
"""

from collections.abc import Hashable, Mapping, Sequence
from heapq import heappop, heappush

import msgspec

from vocab_parallel.plan.gives import Delays, Way, gives
from vocab_parallel.plan.passes import Kind, Pass, Schedule
from vocab_parallel.plan.wants import Wants, names

PassSeconds = Mapping[tuple[Kind, int], float]
"""Duration of one rank's passes by (kind, chunk)."""


class Played(msgspec.Struct, frozen=True):
    """Start and end of every pass, per rank in the order of its program.

    Where the schedule stalls, the lists end with the last pass that could run.
    """

    starts: tuple[tuple[float, ...], ...]
    ends: tuple[tuple[float, ...], ...]

    @property
    def seconds(self) -> float:
        """End of the last pass."""
        return max((ends[-1] for ends in self.ends if ends), default=0.0)


def play(
    schedule: Schedule,
    seconds: Sequence[PassSeconds],
    delays: Delays,
    *,
    meets: frozenset[Kind] = frozenset(),
) -> Played:
    """Return the times of all passes.

    `seconds` per rank; `delays` are the links' times. At passes of the kinds in `meets` all ranks
    wait for each other. O(n log n) in the passes: a T waits for p passes S, but these are kept as
    one number.
    """
    player = _Player(schedule, seconds, delays, meets)
    player.run()
    return Played(tuple(map(tuple, player.starts)), tuple(map(tuple, player.ends)))


class _Player:
    """Passes end in the order of time, so that links serve in that order too.

    `there` has when the result of a pass is where a need wants it.
    """

    def __init__(
        self,
        schedule: Schedule,
        seconds: Sequence[PassSeconds],
        delays: Delays,
        meets: frozenset[Kind],
    ) -> None:
        self.schedule, self.seconds, self.meets = schedule, seconds, meets
        self.wants = Wants(schedule)
        self.gives = [
            {
                (kind, chunk): gives(schedule, self.wants, delays, rank, Pass(kind, 0, chunk))
                for kind, chunk in names(program)
            }
            for rank, program in enumerate(schedule.programs)
        ]
        self.there: dict[int, float] = {}
        self.waiting: dict[int, list[int]] = {}
        self.counts: dict[Pass, int] = {}
        self.free: dict[Hashable, float] = {}
        self.arrived: dict[Pass, dict[int, float]] = {}
        self.coming: list[tuple[float, int]] = []
        self.starts: list[list[float]] = [[] for _ in range(schedule.ranks)]
        self.ends: list[list[float]] = [[] for _ in range(schedule.ranks)]

    def run(self) -> None:
        for rank in range(self.schedule.ranks):
            self.begin(rank)
        while self.coming:
            end, rank = heappop(self.coming)
            item = self.schedule.programs[rank][len(self.ends[rank])]
            self.ends[rank].append(end)
            self.finish(rank, item, end)
            self.begin(rank)

    def begin(self, rank: int) -> None:
        """Start a rank's next pass, if all is there that it waits for."""
        position = len(self.ends[rank])
        program = self.schedule.programs[rank]
        if position == len(program) or len(self.starts[rank]) > position:
            return
        item = program[position]
        start = self.ends[rank][-1] if position else 0.0
        for need in self.wants.of(rank, item):
            arrival = self.there.get(need)
            if arrival is None:
                self.waiting.setdefault(need, []).append(rank)
                return
            start = max(start, arrival)
        if item.kind not in self.meets:
            self.start(rank, item, start)
            return
        arrived = self.arrived.setdefault(item, {})
        arrived[rank] = start
        if len(arrived) == self.schedule.ranks:
            for other in arrived:
                self.start(other, item, max(arrived.values()))

    def start(self, rank: int, item: Pass, start: float) -> None:
        self.starts[rank].append(start)
        heappush(self.coming, (start + self.seconds[rank][item.kind, item.chunk], rank))

    def finish(self, rank: int, item: Pass, end: float) -> None:
        """Send on what a pass has made."""
        gives = self.gives[rank][item.kind, item.chunk]
        if gives.local is not None:
            self.bring(gives.local, item.batch, end)
        if gives.message:
            self.carry(gives.message, item.batch, end)
        if gives.by_all:
            self.counts[item] = self.counts.get(item, 0) + 1
            if self.counts[item] < self.schedule.ranks:
                return
        for way in gives.collectives:
            self.carry(way, item.batch, end)

    def carry(self, way: Way, batch: int, end: float) -> None:
        """Have a link carry what it is given at `end`, after what it was given before."""
        arrival = max(end, self.free.get(way.channel, 0.0)) + way.seconds
        self.free[way.channel] = arrival
        if way.number is not None:
            self.bring(way.number, batch, arrival)

    def bring(self, number: int, batch: int, arrival: float) -> None:
        need = number + batch * self.wants.count
        self.there[need] = arrival
        for rank in self.waiting.pop(need, ()):
            self.begin(rank)
