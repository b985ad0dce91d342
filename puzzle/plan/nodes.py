"""Which generation place each rank takes where ranks sit on nodes: tensor groups stay on one.

A generation tensor group, a cell (p', d'), takes T' ranks of one node. Cells are shared out over
nodes by what a cell alone would find there, then every node's ranks over its cells' places
(Hungarian method). That is the optimum where a node has one cell, or alike ranks; else the cells'
distribution is searched: all of them where they are few, by exchanges otherwise.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import combinations
from math import gcd
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from puzzle.inputs.layout import Layout
from puzzle.plan.assign import best_assignment
from puzzle.plan.shares import Counts, Shares

_EXACT = 20_000
"""Most states of what is left of every stage for which all distributions are searched."""
_EXCHANGES = 400
"""Most exchanges of cells that are tried otherwise."""

Ranks = tuple[int, ...]
"""Of a block's ranks, the number s T + t of what each holds."""
Cells = tuple[int, ...]
"""Generation stages, in order."""


class Weights(NamedTuple):
    """What an assignment is judged by: elements that stay, less elements between nodes."""

    stay: float
    between: float


class Blocks(NamedTuple):
    """The ranks in blocks that whole cells are given to: nodes, or single ranks where T' = 1."""

    ranks: tuple[range, ...]
    nodes: tuple[frozenset[int], ...]
    """What each block's node holds, as numbers s T + t."""


def blocks_of(train: Layout, generate: Layout, node: int) -> Blocks:
    """Return the blocks of a training layout on nodes of `node` devices."""
    held = [place.stage * train.tensor + place.slice for place in train.places()]
    size = node if generate.tensor > 1 else 1
    ranks = [range(b, min(b + size, train.world)) for b in range(0, train.world, size)]
    firsts = [block.start // node * node for block in ranks]
    sets = {first: frozenset(held[first : first + node]) for first in set(firsts)}
    return Blocks(tuple(ranks), tuple(sets[first] for first in firsts))


def between_nodes(shares: Shares, held: frozenset[int], own: int) -> Counts:
    """Return what a rank that holds `own` fetches from other nodes for each place, P' T'.

    `held` is what its node holds. Norms come from the rank's own stage, or from the slice that the
    start of the new slice is in.
    """
    t, t_new = shares.pieces.shape
    there = np.zeros((len(shares.cut), t), dtype=np.int64)
    there.flat[list(held)] = 1
    away = np.einsum("st,su,tv->uv", 1 - there, shares.cut, shares.pieces)
    like = [part * t // t_new for part in range(t_new)]
    absent = 1 - there[:, like]
    absent[own // t] = 0
    return (away + np.einsum("su,sv->uv", shares.norms, absent)).ravel()


def sent_between(
    train: Layout, generate: Layout, shares: Shares, node: int, assignment: Sequence[int]
) -> int:
    """Return the elements that go from node to node in a switch, all ranks together."""
    held = [place.stage * train.tensor + place.slice for place in train.places()]
    known: dict[tuple[frozenset[int], int], Counts] = {}
    total = 0
    for rank, number in enumerate(assignment):
        first = rank // node * node
        key = frozenset(held[first : first + node]), held[rank]
        if key not in known:
            known[key] = between_nodes(shares, *key)
        place = generate.place(number)
        total += int(known[key][place.stage * generate.tensor + place.slice])
    return total


class Judge:
    """Scores blocks with cells on them."""

    def __init__(self, shares: Shares, weights: Weights, slices: int) -> None:
        self.shares, self.weights, self.slices = shares, weights, slices
        self.resident = shares.resident()
        self.scores = lru_cache(maxsize=None)(self._scores)
        self.settled = lru_cache(maxsize=None)(self._settled)

    def _scores(self, rank: int, held: frozenset[int]) -> NDArray[np.float64]:
        scores = self.weights.stay * self.resident[rank]
        if self.weights.between:
            scores = scores - self.weights.between * between_nodes(self.shares, held, rank)
        return scores

    def _settled(self, ranks: Ranks, held: frozenset[int], cells: Cells) -> tuple[float, Ranks]:
        """Return the score of cells on a block, and the place in `cells` x T' of each rank."""
        columns = [cell * self.slices + part for cell in cells for part in range(self.slices)]
        scores = np.stack([self.scores(rank, held)[columns] for rank in ranks])
        spare = len(ranks) - len(columns)
        square = np.hstack([scores, np.full((len(ranks), spare), scores.min(initial=0.0))])
        chosen = best_assignment(square)
        taken = [(r, c) for r, c in enumerate(chosen) if c < len(columns)]
        return float(sum(scores[r, c] for r, c in taken)), tuple(chosen)


def node_assignment(
    train: Layout, generate: Layout, shares: Shares, node: int, weights: Weights
) -> tuple[int, ...]:
    """Return by rank the number of the generation place that it takes.

    `node` devices are on a node; T' divides it.
    """
    blocks = blocks_of(train, generate, node)
    judge = Judge(shares, weights, generate.tensor)
    held = [place.stage * train.tensor + place.slice for place in train.places()]
    content = [tuple(held[rank] for rank in ranks) for ranks in blocks.ranks]
    keys = list(zip(content, blocks.nodes, strict=True))
    cells = _distributed(keys, judge, generate)
    return _places(blocks, keys, cells, judge, generate)


_Key = tuple[Ranks, frozenset[int]]


def _distributed(keys: Sequence[_Key], judge: Judge, generate: Layout) -> list[Cells]:
    """Return every block's cells."""
    stages, replicas, slices = generate.pipeline, generate.data, generate.tensor
    if stages == 1:
        return [(0,) * (len(ranks) // slices) for ranks, _ in keys]
    single = all(len(ranks) == slices for ranks, _ in keys)
    if not single and (replicas + 1) ** stages * len(keys) <= _EXACT:
        return _every_way(keys, judge, generate)
    cells = _by_single_cells(keys, judge, generate)
    return cells if single else _exchanged(keys, cells, judge)


def _by_single_cells(keys: Sequence[_Key], judge: Judge, generate: Layout) -> list[Cells]:
    """Share cells out by what one alone would score: the optimum where it is alone."""
    kinds = sorted(set(keys), key=keys.index)
    count = Counter(keys)
    slots = [count[kind] * (len(kind[0]) // generate.tensor) for kind in kinds]
    unit = gcd(generate.data, *slots)
    alone = np.array([[judge.settled(*kind, (s,))[0] for s in range(generate.pipeline)]
                      for kind in kinds])  # fmt: skip
    rows = np.repeat(np.arange(len(kinds)), [slot // unit for slot in slots])
    columns = np.repeat(np.arange(generate.pipeline), generate.data // unit)
    chosen = best_assignment(alone[rows][:, columns])
    dealt: dict[_Key, list[int]] = {kind: [] for kind in kinds}
    for row, column in enumerate(chosen):
        dealt[kinds[rows[row]]] += [int(columns[column])] * unit
    numbers = Counter[_Key]()
    found: list[Cells] = []
    for key in keys:  # unlike stages to one block: they have most of their weights on unlike ranks
        found.append(tuple(sorted(dealt[key])[numbers[key] :: count[key]]))
        numbers[key] += 1
    return found


def _every_way(keys: Sequence[_Key], judge: Judge, generate: Layout) -> list[Cells]:
    """Return the best of all distributions, block by block over what is left of every stage."""
    best: dict[tuple[int, ...], tuple[float, list[Cells]]] = {
        (generate.data,) * generate.pipeline: (0.0, [])
    }
    for ranks, held in keys:
        following: dict[tuple[int, ...], tuple[float, list[Cells]]] = {}
        for left, (score, cells) in best.items():
            for chosen in _choices(left, len(ranks) // generate.tensor):
                rest = tuple(have - chosen.count(stage) for stage, have in enumerate(left))
                total = score + judge.settled(ranks, held, chosen)[0]
                if rest not in following or total > following[rest][0]:
                    following[rest] = total, [*cells, chosen]
        best = following
    return next(iter(best.values()))[1]


def _choices(left: Sequence[int], count: int, first: int = 0) -> Iterator[Cells]:
    """Yield the multisets of `count` stages among what is left of each."""
    if count == 0:
        yield ()
        return
    for stage in range(first, len(left)):
        if left[stage]:
            less = [have - (number == stage) for number, have in enumerate(left)]
            for others in _choices(less, count - 1, stage):
                yield (stage, *others)


def _exchanged(keys: Sequence[_Key], cells: list[Cells], judge: Judge) -> list[Cells]:
    """Exchange cells between blocks as long as that scores more."""
    cells = list(cells)
    tried, better = 0, True
    while better and tried < _EXCHANGES:
        better = False
        for one, two in combinations(range(len(keys)), 2):
            if cells[one] == cells[two]:
                continue
            tried += 1
            swapped = _best_swap(keys[one], keys[two], cells[one], cells[two], judge)
            if swapped:
                cells[one], cells[two] = swapped
                better = True
            if tried >= _EXCHANGES:
                break
    return cells


def _best_swap(
    one: _Key, two: _Key, a: Cells, b: Cells, judge: Judge
) -> tuple[Cells, Cells] | None:
    """Return the cells of two blocks after the best exchange of one each, None if none helps."""
    best, found = judge.settled(*one, a)[0] + judge.settled(*two, b)[0], None
    for x in sorted(set(a)):
        for y in sorted(set(b) - {x}):
            new = tuple(sorted([*_without(a, x), y])), tuple(sorted([*_without(b, y), x]))
            score = judge.settled(*one, new[0])[0] + judge.settled(*two, new[1])[0]
            if score > best:
                best, found = score, new
    return found


def _without(cells: Cells, one: int) -> list[int]:
    rest = list(cells)
    rest.remove(one)
    return rest


def _places(
    blocks: Blocks, keys: Sequence[_Key], cells: Sequence[Cells], judge: Judge, generate: Layout
) -> tuple[int, ...]:
    """Return each rank's place number; replicas are numbered by block, stage by stage."""
    used = [0] * generate.pipeline
    found = [0] * generate.world
    for ranks, key, chosen in zip(blocks.ranks, keys, cells, strict=True):
        numbers: list[int] = []
        for stage in chosen:
            first = (stage * generate.data + used[stage]) * generate.tensor
            numbers += range(first, first + generate.tensor)
            used[stage] += 1
        _, order = judge.settled(*key, chosen)
        for rank, place in zip(ranks, order, strict=True):
            found[rank] = numbers[place]
    return tuple(found)
