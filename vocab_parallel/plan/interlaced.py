"""Interlaced: the sharded output layer as in tensor parallelism, all ranks at once.

nnScaler's schedule as the Vocabulary Parallelism paper compares with it (§6, appendix B.2). All
ranks meet at S of a micro-batch and leave after its T; a forward pass then moves two ranks per
interval and a backward pass one, hence 3p/2 micro-batches on the first rank.
"""

from vocab_parallel.plan.costs import check_size
from vocab_parallel.plan.passes import Kind, Pass, Schedule


def interlaced(ranks: int, batches: int) -> Schedule:
    """Return the schedule for any p, m >= 1; rank r holds at most floor(3p/2) - r micro-batches.

    The original stops with an error where p is odd; there the first rank runs B before F, and the
    input's backward pass can follow one interval earlier.
    """
    check_size(ranks, batches)
    programs = tuple(_program(rank, ranks, batches) for rank in range(ranks))
    return Schedule(
        method="interlaced",
        ranks=ranks,
        batches=batches,
        barriers=2,
        synchronous=True,
        programs=programs,
    )


def _program(rank: int, ranks: int, batches: int) -> tuple[Pass, ...]:
    before, meetings = 3 * ranks // 2 - rank, ranks - rank
    inputs, gradients = _Counter("IF", batches), _Counter("IB", batches)
    program: list[Pass] = []
    for _ in range(rank + 1):
        program += inputs.take()
    for batch in range(min(before, batches)):
        program += [*inputs.take(), Pass("F", batch)]
    for batch in range(batches):
        if batch >= meetings:
            program += _interval(rank, ranks, batches, batch)
        program += [Pass("S", batch), Pass("T", batch)]
        if batch >= ranks - 1:
            program += inputs.take()
        if batch >= ranks + 1 - ranks % 2:
            program += gradients.take()
    for batch in range(max(0, batches - meetings), batches):
        program += [Pass("B", batch), *gradients.take()]
    while left := gradients.take():
        program += left
    return tuple(program)


def _interval(rank: int, ranks: int, batches: int, meeting: int) -> list[Pass]:
    """Return what a rank does before it meets the others at S: F and B, every second rank B and F.

    The forward pass is the one that reaches the last rank in time for the meeting of its
    micro-batch; the first of them ran in the warm-up already.
    """
    ahead = meeting + (ranks - rank - 1) // 2
    in_warm_up = ahead < 3 * ranks // 2 - rank
    forward = [] if in_warm_up or ahead >= batches else [Pass("F", ahead)]
    backward = [Pass("B", meeting - (ranks - rank))]
    return forward + backward if (ranks - rank) % 2 == 0 else backward + forward


class _Counter:
    """Hands out one kind's passes in order until there are none left."""

    def __init__(self, kind: Kind, batches: int) -> None:
        self.kind: Kind = kind
        self.left = iter(range(batches))

    def take(self) -> list[Pass]:
        return [Pass(self.kind, batch) for batch in [next(self.left, None)] if batch is not None]
