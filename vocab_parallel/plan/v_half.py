"""V-Half: two chunks per rank in a V, half of 1F1B's memory, with 0, 1 or 2 barriers.

Qi et al. 2024 (controllable memory) for the pattern; Vocabulary Parallelism §5.2 and its artifact
for the offsets that make room for the sharded output layer. One interval is six slots of a rank:
F, B and W of both chunks.
"""

from vocab_parallel.plan.costs import Costs, check_size
from vocab_parallel.plan.passes import Pass, Schedule
from vocab_parallel.plan.v_half_clock import Clock, clock
from vocab_parallel.plan.v_half_vocabulary import with_vocabulary

_INTERVAL = 6
_METHODS = {0: "v-half", 1: "v-half-vocab-2", 2: "v-half-vocab-1"}


def v_half(ranks: int, batches: int, barriers: int = 0, costs: Costs | None = None) -> Schedule:
    """Return the schedule; every rank holds at most p + 2 (+ 2 per barrier) half-stage chunks.

    `costs` only place the vocabulary passes; the order of F, B and W is the pattern's.
    """
    check_size(ranks, batches)
    programs = tuple(_pattern(rank, ranks, batches, barriers) for rank in range(ranks))
    schedule = Schedule(
        method=_METHODS[barriers],
        ranks=ranks,
        batches=batches,
        chunks=2,
        barriers=barriers,
        split_backward=True,
        programs=programs,
    )
    if barriers == 0:
        return schedule
    times: Clock = clock(schedule, costs or Costs())
    return with_vocabulary(schedule, times)


def _pattern(rank: int, ranks: int, batches: int, barriers: int) -> tuple[Pass, ...]:
    """Return F and B of one rank at the pattern's slots, W in the gaps."""
    delay = (0 if ranks % 2 else 3) + _INTERVAL * barriers
    first = {
        Pass("F", 0, 0): 2 * rank,
        Pass("F", 0, 1): 3 * ranks - rank - 2,
        Pass("B", 0, 1): 3 * ranks + delay + 2 * rank - 1,
        Pass("B", 0, 0): 6 * ranks + delay - rank - 2,
    }
    slots = {
        slot + _INTERVAL * batch: Pass(item.kind, batch, item.chunk)
        for item, slot in first.items()
        for batch in range(batches)
    }
    assert len(slots) == 4 * batches, "two passes of a rank share a slot"
    return tuple(_with_weight_passes(slots))


def _with_weight_passes(slots: dict[int, Pass]) -> list[Pass]:
    """Put a pending W in every idle slot, chunk 1 before chunk 0; what is left follows the end."""
    pending: dict[int, list[int]] = {0: [], 1: []}
    program: list[Pass] = []
    for slot in range(max(slots) + 1):
        item = slots.get(slot)
        if item is None:
            program += _take_weight_pass(pending)
            continue
        program.append(item)
        if item.kind == "B":
            pending[item.chunk].append(item.batch)
    while left := _take_weight_pass(pending):
        program += left
    return program


def _take_weight_pass(pending: dict[int, list[int]]) -> list[Pass]:
    for chunk in (1, 0):
        if pending[chunk]:
            return [Pass("W", pending[chunk].pop(0), chunk)]
    return []
