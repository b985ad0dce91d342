"""Which ranks send to which in a run: ordered pairs, known before the first message."""

from collections.abc import Sequence
from itertools import pairwise

from puzzle.inputs.layout import Layout, Place
from puzzle.plan.reshard import ReshardPlan

Pairs = frozenset[tuple[int, int]]
"""(source, target)."""


def training_pairs(layout: Layout) -> Pairs:
    """Return neighbouring stages of each pipeline, both ways, and its two ends (fused)."""
    found: set[tuple[int, int]] = set()
    for ranks in layout.pipeline_groups():
        ends = [(ranks[0], ranks[-1])]
        for a, b in (*pairwise(ranks), *ends):
            found |= {(a, b), (b, a)}
    return _without_self(found)


def generation_pairs(layout: Layout, places: Sequence[Place]) -> Pairs:
    """Return the ring of each pipeline: hidden states go on, the last stage tells all its tokens.

    `places[r]` is the generation place of rank r.
    """
    rank_of = {place: rank for rank, place in enumerate(places)}
    found: set[tuple[int, int]] = set()
    for numbers in layout.pipeline_groups():
        ranks = [rank_of[layout.place(number)] for number in numbers]
        found |= set(pairwise(ranks))
        found |= {(ranks[-1], other) for other in ranks}
    return _without_self(found)


def switch_pairs(moves: ReshardPlan) -> Pairs:
    """Return who sends to whom in a switch."""
    return _without_self({(move.source, move.target) for move in moves.moves})


def _without_self(pairs: set[tuple[int, int]]) -> Pairs:
    return frozenset((a, b) for a, b in pairs if a != b)
