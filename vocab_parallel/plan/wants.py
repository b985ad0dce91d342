"""What the passes of a schedule wait for, as numbers that are worked out once.

The rules are those of `dependencies`. They are the same of every micro-batch, and planning asks
them of each pass of many schedules.
"""

from collections import defaultdict

from vocab_parallel.plan.dependencies import Need, needs
from vocab_parallel.plan.passes import Kind, Pass, Schedule


class Wants:
    """Each need of micro-batch 0 has a number below `count`; that of batch k is k x count more."""

    def __init__(self, schedule: Schedule) -> None:
        """Work out the needs of every kind and chunk in the programs."""
        self._numbers: dict[Need, int] = {}
        self._of = [
            {name: self._wanted(schedule, rank, *name) for name in names(program)}
            for rank, program in enumerate(schedule.programs)
        ]
        self.count = len(self._numbers)
        self._met: defaultdict[tuple[int, Pass], list[int]] = defaultdict(list)
        for need, number in self._numbers.items():
            self._met[need.rank, need.item].append(number)

    def of(self, rank: int, item: Pass) -> list[int]:
        """Return what one pass of one rank waits for."""
        before = item.batch * self.count
        return [before + number for number in self._of[rank][item.kind, item.chunk]]

    def number(self, need: Need) -> int | None:
        """Return a need's number in micro-batch 0; None where no pass has it."""
        return self._numbers.get(need)

    def met_by(self, rank: int, kind: Kind, chunk: int) -> list[int]:
        """Return the needs that a pass of a rank (or of EVERY rank) meets, whatever carries it."""
        return self._met[rank, Pass(kind, 0, chunk)]

    def _wanted(self, schedule: Schedule, rank: int, kind: Kind, chunk: int) -> tuple[int, ...]:
        numbers = self._numbers
        return tuple(
            numbers.setdefault(need, len(numbers))
            for need in needs(schedule, rank, Pass(kind, 0, chunk))
        )


def names(program: tuple[Pass, ...]) -> set[tuple[Kind, int]]:
    """Return the kinds and chunks of a program's passes."""
    return {(item.kind, item.chunk) for item in program}
