"""A schedule carried out in time: every pass starts as soon as its rank and its inputs are there.

One engine for both uses: the checker plays with collectives that block, the simulator with the
times of a model (`vocab_parallel.simulate`).
"""

from collections.abc import Mapping, Sequence

import msgspec

from vocab_parallel.plan.dependencies import EVERY, Link, needs
from vocab_parallel.plan.passes import Kind, Pass, Schedule

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
    delays: Mapping[Link, float],
    *,
    meets: frozenset[Kind] = frozenset(),
) -> Played:
    """Return the times of all passes.

    `seconds` per rank; `delays` are added to the end of what a pass waits for. At passes of the
    kinds in `meets` all ranks wait for each other. O(passes x ranks that they wait for): a
    T waits for p passes S, but these are kept as one number, so O(passes).
    """
    player = _Player(schedule, seconds, delays, meets)
    moved = True
    while moved:
        moved = False
        for rank in range(schedule.ranks):
            while player.step(rank):
                moved = True
    return Played(tuple(map(tuple, player.starts)), tuple(map(tuple, player.ends)))


class _Player:
    """What is over, and when. `shared` has the end and the count of a pass over all ranks."""

    def __init__(
        self,
        schedule: Schedule,
        seconds: Sequence[PassSeconds],
        delays: Mapping[Link, float],
        meets: frozenset[Kind],
    ) -> None:
        self.schedule, self.seconds, self.delays, self.meets = schedule, seconds, delays, meets
        self.over: list[dict[Pass, float]] = [{} for _ in range(schedule.ranks)]
        self.shared: dict[Pass, tuple[int, float]] = {}
        self.arrived: dict[Pass, dict[int, float]] = {}
        self.starts: list[list[float]] = [[] for _ in range(schedule.ranks)]
        self.ends: list[list[float]] = [[] for _ in range(schedule.ranks)]

    def step(self, rank: int) -> bool:
        """Run a rank's next pass; say whether that was possible."""
        position = len(self.ends[rank])
        program = self.schedule.programs[rank]
        if position == len(program):
            return False
        item = program[position]
        start = self.ready(rank, item, self.ends[rank][-1] if position else 0.0)
        if start is not None and item.kind in self.meets:
            start = self.meeting(rank, item, start)
        if start is None:
            return False
        end = start + self.seconds[rank][item.kind, item.chunk]
        self.starts[rank].append(start)
        self.ends[rank].append(end)
        self.finish(rank, item, end)
        return True

    def ready(self, rank: int, item: Pass, free: float) -> float | None:
        """Return when a pass can start; None while something it waits for is not over."""
        start = free
        for need in needs(self.schedule, rank, item):
            if need.rank == EVERY:
                count, end = self.shared.get(need.item, (0, 0.0))
                if count < self.schedule.ranks:
                    return None
            else:
                known = self.over[need.rank].get(need.item)
                if known is None:
                    return None
                end = known
            start = max(start, end + self.delays.get(need.link, 0.0))
        return start

    def meeting(self, rank: int, item: Pass, ready: float) -> float | None:
        """Return when the last rank arrives at a pass; None while one is missing."""
        arrived = self.arrived.setdefault(item, {})
        arrived[rank] = ready
        return max(arrived.values()) if len(arrived) == self.schedule.ranks else None

    def finish(self, rank: int, item: Pass, end: float) -> None:
        self.over[rank][item] = end
        if item.kind not in ("F", "B", "W", "IB"):
            count, latest = self.shared.get(item, (0, 0.0))
            self.shared[item] = count + 1, max(latest, end)
