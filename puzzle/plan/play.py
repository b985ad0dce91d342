"""A schedule carried out in time: every pass starts when its rank and its inputs are there.

The checker plays with unit times, the timeline (`puzzle.simulate.timeline`) with predicted ones.
"""

from collections.abc import Callable

import msgspec

from puzzle.plan.passes import Pass, Schedule

Seconds = Callable[[int, Pass], float]
"""Duration of a pass on a rank."""


class Played(msgspec.Struct, frozen=True):
    """Start and end of every pass by rank; shorter than the program where it stalls."""

    starts: tuple[tuple[float, ...], ...]
    ends: tuple[tuple[float, ...], ...]

    @property
    def seconds(self) -> float:
        """End of the last pass."""
        return max((ends[-1] for ends in self.ends if ends), default=0.0)


def play(schedule: Schedule, seconds: Seconds, delay: float = 0.0) -> Played:
    """Return the times of all passes; `delay` is added where a result comes from another rank."""
    starts: list[list[float]] = [[] for _ in range(schedule.stages)]
    ends: list[list[float]] = [[] for _ in range(schedule.stages)]
    over: list[dict[Pass, float]] = [{} for _ in range(schedule.stages)]
    moved = True
    while moved:
        moved = False
        for rank, program in enumerate(schedule.programs):
            while len(ends[rank]) < len(program):
                item = program[len(ends[rank])]
                start = ends[rank][-1] if ends[rank] else 0.0
                known = True
                for other, need in schedule.needs(rank, item):
                    end = over[other].get(need)
                    if end is None:
                        known = False
                        break
                    start = max(start, end + (delay if other != rank else 0.0))
                if not known:
                    break
                starts[rank].append(start)
                ends[rank].append(start + seconds(rank, item))
                over[rank][item] = ends[rank][-1]
                moved = True
    return Played(tuple(map(tuple, starts)), tuple(map(tuple, ends)))
