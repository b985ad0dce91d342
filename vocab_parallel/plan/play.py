"""A schedule carried out in time: every pass starts as soon as its rank and its inputs are there.

One engine for both uses: the checker plays with collectives that block, the simulator with the
times of a model (`vocab_parallel.simulate`). Links carry one thing at a time: the messages of a
pair of ranks and direction queue behind each other, and so do all collectives, as they do on one
NCCL communicator.
"""

from collections.abc import Hashable, Mapping, Sequence
from heapq import heappop, heappush

import msgspec

from vocab_parallel.plan.dependencies import EVERY, Link, Need, needs
from vocab_parallel.plan.messages import outgoing
from vocab_parallel.plan.passes import Kind, Pass, Schedule

PassSeconds = Mapping[tuple[Kind, int], float]
"""Duration of one rank's passes by (kind, chunk)."""

Delays = Mapping[Link | tuple[int, int], float]
"""Seconds that a link is taken by one message or collective; a pair (source, target) of ranks has
its own where it differs from `p2p`."""


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
        self.schedule, self.seconds, self.delays, self.meets = schedule, seconds, delays, meets
        self.there: dict[Need, float] = {}
        self.waiting: dict[Need, list[int]] = {}
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
        for need in needs(self.schedule, rank, item):
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
        self.bring(Need(rank, item, "local"), end)
        goes = outgoing(self.schedule, rank, item)
        if goes is not None:
            pair = rank, goes[0]
            delay = self.delays.get(pair, self.delays.get("p2p", 0.0))
            self.bring(Need(rank, item, "p2p"), self.carried(pair, end, delay))
        links = _collectives(self.schedule, rank, item)
        if links is None:
            return
        source = rank
        if item.kind in ("IF", "S", "T"):
            source = EVERY
            self.counts[item] = self.counts.get(item, 0) + 1
            if self.counts[item] < self.schedule.ranks:
                return
        for link in links:
            channel = "statistics" if link == "statistics" else "collectives"
            arrival = self.carried(channel, end, self.delays.get(link, 0.0))
            self.bring(Need(source, item, link), arrival)

    def carried(self, channel: Hashable, end: float, delay: float) -> float:
        """Return when a link has carried what it is given at `end`, after what it was given."""
        arrival = max(end, self.free.get(channel, 0.0)) + delay
        self.free[channel] = arrival
        return arrival

    def bring(self, need: Need, arrival: float) -> None:
        self.there[need] = arrival
        for rank in self.waiting.pop(need, ()):
            self.begin(rank)


def _collectives(schedule: Schedule, rank: int, item: Pass) -> tuple[Link, ...] | None:
    """Return the collectives that follow a pass, in order; of IF, S and T once all ranks had it."""
    if not schedule.barriers:
        return None
    match item.kind:
        case "IF":
            return ("inputs",)
        case "S":
            last = item.chunk == schedule.output_parts - 1
            return (
                ("statistics", "gradient") if last and schedule.barriers == 1 else ("statistics",)
            )
        case "T" if schedule.barriers > 1:
            return ("gradient",)
        case "F" if schedule.stage(rank, item.chunk) == schedule.stages - 1:
            return ("hidden",)
        case "B" if schedule.stage(rank, item.chunk) == 0:
            return ("input gradient",)
        case _:
            return None
