"""ZB-H1: the backward pass split in B and W, so that W fills what 1F1B waits at its end.

Qi et al. 2024 (Zero Bubble Pipeline Parallelism), §3: as many micro-batches as 1F1B's first rank
holds. Rank r does r backward passes B before its first W; these r weight gradients are what it does
at the end, while the ranks before it still wait for their last B.
"""

from vocab_parallel.plan.costs import Costs, check_size
from vocab_parallel.plan.passes import Pass, Schedule
from vocab_parallel.plan.vocabulary_passes import with_vocabulary_passes

_METHODS = {0: "zb-h1", 1: "zb-h1-vocab-2", 2: "zb-h1-vocab-1"}


def zero_bubble(
    ranks: int, batches: int, barriers: int = 0, costs: Costs | None = None
) -> Schedule:
    """Return the schedule; every rank keeps at most p + barriers micro-batches until their W.

    `costs` only place the vocabulary passes.
    """
    check_size(ranks, batches)
    most = ranks + barriers
    schedule = Schedule(
        method=_METHODS[barriers],
        ranks=ranks,
        batches=batches,
        split_backward=True,
        programs=tuple(_program(most - rank, most, batches) for rank in range(ranks)),
    )
    return with_vocabulary_passes(schedule, barriers, costs or Costs()) if barriers else schedule


def _program(ahead: int, most: int, batches: int) -> tuple[Pass, ...]:
    """Return one rank's list: `ahead` F, then F as `most` allows, B, and W where it must be."""
    forward = min(ahead, batches)
    program = [Pass("F", batch) for batch in range(forward)]
    done = 0
    for batch in range(batches):
        program.append(Pass("B", batch))
        if forward - done == most or forward == batches:
            program.append(Pass("W", done))
            done += 1
        if forward < batches:
            program.append(Pass("F", forward))
            forward += 1
    program += [Pass("W", batch) for batch in range(done, batches)]
    return tuple(program)
