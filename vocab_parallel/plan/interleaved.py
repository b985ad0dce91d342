"""Interleaved 1F1B: every rank holds v chunks of layers, so that the pipeline fills v times faster.

Narayanan et al. 2021, §2.2 (Megatron-LM's virtual pipeline stages). Micro-batches go through the
chunks in groups of p. Megatron wants m to be a multiple of p; here what lacks of the last group is
left out of the order of a full one: the same passes in the order of a smaller group would stall.
"""

from vocab_parallel.plan.costs import Costs, check_size
from vocab_parallel.plan.passes import Kind, Pass, Schedule
from vocab_parallel.plan.vocabulary_passes import with_vocabulary_passes

_METHODS = {0: "interleaved", 1: "interleaved-vocab-2", 2: "interleaved-vocab-1"}


def interleaved(
    ranks: int, batches: int, barriers: int = 0, *, chunks: int = 2, costs: Costs | None = None
) -> Schedule:
    """Return the schedule; rank r holds at most 2 (p - r - 1) + (v - 1) p + 1 + barriers chunks.

    `costs` only place the vocabulary passes.
    """
    check_size(ranks, batches)
    programs = tuple(
        _program(rank, ranks, batches, chunks=chunks, barriers=barriers) for rank in range(ranks)
    )
    schedule = Schedule(
        method=_METHODS[barriers],
        ranks=ranks,
        batches=batches,
        chunks=chunks,
        layout="loop",
        programs=programs,
    )
    return with_vocabulary_passes(schedule, barriers, costs or Costs()) if barriers else schedule


def _program(
    rank: int, ranks: int, batches: int, *, chunks: int, barriers: int
) -> tuple[Pass, ...]:
    groups = -(-batches // ranks)
    forward = _order("F", ranks, groups, range(chunks))
    backward = _order("B", ranks, groups, range(chunks - 1, -1, -1))
    ahead = 2 * (ranks - rank - 1) + (chunks - 1) * ranks + barriers
    program = forward[:ahead]
    for done, item in enumerate(backward):
        program += [*forward[ahead + done : ahead + done + 1], item]
    return tuple(item for item in program if item.batch < batches)


def _order(kind: Kind, ranks: int, groups: int, chunks: range) -> list[Pass]:
    """Return all passes of a kind: of every group of p micro-batches chunk by chunk."""
    return [
        Pass(kind, ranks * group + place, chunk)
        for group in range(groups)
        for chunk in chunks
        for place in range(ranks)
    ]
