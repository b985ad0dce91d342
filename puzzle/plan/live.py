"""How many micro-batches of both models are live at once on each rank, from the pass lists."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from puzzle.plan.passes import Pass, ScheduleName
from puzzle.plan.schedules import make_schedule

Bytes = NDArray[np.float64]
"""By pipeline rank."""


def live_bytes(
    schedule: ScheduleName,
    stages: int,
    batches: int,
    actor: Bytes,
    critic: Bytes,
    ratio: float = 1.0,
) -> Bytes:
    """Return the most that waits for its backward pass at any moment, by pipeline rank.

    `actor` and `critic` are the bytes of one micro-batch on each rank. 1F1B holds P - p in a row
    of its stream on rank p: of one model, or of both where the merged stream passes from one to the
    other. The fused schedule's counts are read from its pass list; `ratio` as in `fused`.
    """
    if schedule == "fused":
        return np.array(
            [
                max(a * actor[rank] + c * critic[rank] for a, c in pairs)
                for rank, pairs in enumerate(fused_pairs(stages, batches, ratio))
            ]
        )
    more, less = np.maximum(actor, critic), np.minimum(actor, critic)
    ahead = stages - np.arange(stages)
    of_one = np.minimum(ahead, batches)
    if schedule == "sequential":
        return of_one * more
    return of_one * more + (np.minimum(ahead, 2 * batches) - of_one) * less


@lru_cache(maxsize=1024)
def fused_pairs(
    stages: int, batches: int, ratio: float = 1.0
) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Return, by rank, the (actor, critic) counts of the fused order that no other exceeds."""
    programs = make_schedule("fused", stages, batches, ratio).programs
    return tuple(_largest(program) for program in programs)


def _largest(program: tuple[Pass, ...]) -> tuple[tuple[int, int], ...]:
    most: dict[int, int] = {}
    live = {"actor": 0, "critic": 0}
    for item in program:
        if item.kind in "FB":
            live[item.model] += 1 if item.kind == "F" else -1
            most[live["actor"]] = max(most.get(live["actor"], 0), live["critic"])
    kept: list[tuple[int, int]] = []
    for a in sorted(most, reverse=True):
        if not kept or most[a] > kept[-1][1]:
            kept.append((a, most[a]))
    return tuple(kept)
