"""ZB-V: two chunks per rank in a V, B and W apart: half of ZB-H1's bubble with 1F1B's memory.

Qi et al. 2024 (Zero Bubble Pipeline Parallelism), §6, for F, B and W of equal length. The first
micro-batch comes back to the rank where it began, which has the loss, when the others have filled
the V; from then on every rank does F, B and W of one chunk and of the other in turn.
"""

from collections import Counter

from vocab_parallel.plan.costs import Costs, check_size
from vocab_parallel.plan.passes import Kind, Pass, Schedule
from vocab_parallel.plan.vocabulary_passes import with_vocabulary_passes

METHOD_OF_BARRIERS = {0: "zb-v", 1: "zb-v-vocab-2", 2: "zb-v-vocab-1"}


def zero_bubble_v(
    ranks: int, batches: int, barriers: int = 0, costs: Costs | None = None
) -> Schedule:
    """Return the schedule; every rank keeps at most 2 (p + barriers) half-stage chunks until W.

    `costs` only place the vocabulary passes.
    """
    check_size(ranks, batches)
    schedule = Schedule(
        method=METHOD_OF_BARRIERS[barriers],
        ranks=ranks,
        batches=batches,
        chunks=2,
        split_backward=True,
        programs=tuple(_program(rank, ranks, batches, barriers) for rank in range(ranks)),
    )
    return with_vocabulary_passes(schedule, barriers, costs or Costs()) if barriers else schedule


def _program(rank: int, ranks: int, batches: int, barriers: int) -> tuple[Pass, ...]:
    """Return one rank's list: where m does not fill the V, that of more without these."""
    full = max(batches, 2 * ranks - 1 + barriers)
    made = _Made()
    made.add(("F", 0), times=2 * (ranks - rank) - 1)
    # Every barrier puts the first B off by one interval.
    made.add(("F", 1), ("F", 0), times=rank + barriers)
    made.add(("F", 1), ("B", 1), ("W", 1), times=ranks - rank)
    for _ in range(full - ranks - barriers):
        made.add(("F", 0), times=min(1, full - made.count["F", 0]))
        made.add(("B", 0), ("W", 0), ("F", 1), ("B", 1), ("W", 1))
    made.add(("B", 0), ("B", 1), times=rank + barriers)
    made.add(("B", 0), ("W", 0), times=ranks - rank)
    made.add(("W", 1), times=rank + barriers)
    made.add(("W", 0), times=rank + barriers)
    return tuple(item for item in made.passes if item.batch < batches)


class _Made:
    """A rank's passes in order; `count` is the next micro-batch of each kind and chunk."""

    def __init__(self) -> None:
        self.passes: list[Pass] = []
        self.count: Counter[tuple[Kind, int]] = Counter()

    def add(self, *names: tuple[Kind, int], times: int = 1) -> None:
        for kind, chunk in names * times:
            self.passes.append(Pass(kind, self.count[kind, chunk], chunk))
            self.count[kind, chunk] += 1
