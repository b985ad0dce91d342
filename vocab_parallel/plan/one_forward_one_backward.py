"""1F1B with whole vocabulary layers on the first and last stage: `baseline` and `redis`.

PipeDream-Flush (Narayanan et al. 2021, Figure 4). Both methods have the same passes; they differ
in the layers per stage (`vocab_parallel.plan.layers`).
"""

from vocab_parallel.plan.costs import check_size
from vocab_parallel.plan.passes import Pass, Schedule


def one_forward_one_backward(ranks: int, batches: int, *, method: str = "baseline") -> Schedule:
    """Return the 1F1B schedule; rank r holds at most p - r micro-batches."""
    check_size(ranks, batches)
    programs = tuple(_program(min(ranks - 1 - rank, batches), batches) for rank in range(ranks))
    return Schedule(method=method, ranks=ranks, batches=batches, programs=programs)


def _program(ahead: int, batches: int) -> tuple[Pass, ...]:
    program = [Pass("F", batch) for batch in range(ahead)]
    for batch in range(ahead, batches):
        program += [Pass("F", batch), Pass("B", batch - ahead)]
    program += [Pass("B", batch) for batch in range(batches - ahead, batches)]
    return tuple(program)
