"""A placement as a row of blocks: a start for the search where one chain is not the best.

The layers are cut into blocks one after the other. A block's layers are served by up to three
branches side by side, each a chain of machines of one kind, whose rates together reach the target
flow. What blocks are worth having is a matter of kinds and counts alone, and how many of each to
take is a small integer problem; bisection finds the largest target for which they cover all layers.
Annealing by single machines hardly gets from one such row to another, since parallel branches only
help once all of them are in place.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations_with_replacement
from typing import NamedTuple

from common.errors import InputError
from helix.inputs.cluster import Cluster
from helix.plan.bounds import capped_compute_bound
from helix.plan.placement import UNUSED
from helix.plan.solvers import solve
from helix.plan.solvers_matrix import INTEGER, Builder
from helix.plan.solvers_result import Settings
from helix.plan.throughput import Throughput

BRANCHES = 3  # side by side, at most
CHAINED = 6  # machines in a branch, at most
WIDEST = 30  # layers of a block, at most
NEAR = 1e-3  # relative width at which the bisection ends
LIMIT_S = 5.0  # for each target


class Branch(NamedTuple):
    """Machines of one kind in a row, and the flow that they pass, tokens/s."""

    rate: float
    kind: str
    machines: int


class Block(NamedTuple):
    """Layers that the branches serve side by side."""

    layers: int
    branches: tuple[Branch, ...]

    def used(self) -> dict[str, int]:
        """Return the machines of each kind."""
        used = dict[str, int]()
        for branch in self.branches:
            used[branch.kind] = used.get(branch.kind, 0) + branch.machines
        return used


def blocks(cluster: Cluster, layers: int, speed: Throughput) -> tuple[tuple[int, int], ...]:
    """Return each machine's run of layers in the best row of blocks; links are not looked at.

    Raises InputError where the machines do not hold the model so.
    """
    counts = cluster.kind_counts()
    rates = {kind: speed.rates(kind) for kind in counts}
    low = 0.0
    high = capped_compute_bound([rates[node.kind] for node in cluster.nodes], layers)
    best = row_of_blocks(rates, counts, layers, high * NEAR)
    if best is None:
        raise InputError(f"blocks: {layers} layers do not fit these machines")
    while high - low > NEAR * high:
        target = (low + high) / 2
        row = row_of_blocks(rates, counts, layers, target)
        if row is None:
            high = target
        else:
            best, low = row, target
    return _placed(cluster, best, layers)


def row_of_blocks(
    rates: Mapping[str, Sequence[float]], counts: Mapping[str, int], layers: int, target: float
) -> tuple[Block, ...] | None:
    """Return blocks that together cover the layers at the target flow; None if there are none."""
    worth = _blocks(rates, counts, min(layers, WIDEST), target)
    if not worth:
        return None
    b = Builder()
    taken = [
        b.column(f"block_{number}", INTEGER, cost=block.layers, upper=layers)
        for number, block in enumerate(worth)
    ]
    for kind, count in counts.items():
        pairs = zip(taken, worth, strict=True)
        users = [(column, block.used().get(kind, 0)) for column, block in pairs]
        b.row([(column, float(used)) for column, used in users if used], upper=count)
    solved = solve(b.matrices(), Settings(max_run_time=LIMIT_S))
    if solved.x is None or solved.objective < layers - 0.5:
        return None
    return tuple(
        block
        for block, number in zip(worth, solved.x, strict=True)
        for _ in range(round(float(number)))
    )


def _blocks(
    rates: Mapping[str, Sequence[float]], counts: Mapping[str, int], widest: int, target: float
) -> list[Block]:
    """Return for each set of machines the widest block that reaches the target, none in vain."""
    best = dict[frozenset[tuple[str, int]], Block]()
    for width in range(1, widest + 1):
        branches = list(_branches(rates, counts, width))
        for many in range(1, BRANCHES + 1):
            for some in combinations_with_replacement(branches, many):
                total = sum(branch.rate for branch in some)
                if total < target or total - min(branch.rate for branch in some) >= target:
                    continue
                block = Block(width, some)
                used = block.used()
                if all(number <= counts[kind] for kind, number in used.items()):
                    best[frozenset(used.items())] = block  # widths come in rising order
    return list(best.values())


def _branches(
    rates: Mapping[str, Sequence[float]], counts: Mapping[str, int], width: int
) -> Iterator[Branch]:
    """Yield rows of machines of each kind that hold so many layers, none longer than it need be."""
    for kind, own in rates.items():
        fastest = 0.0
        for machines in range(1, min(counts[kind], CHAINED, width) + 1):
            most = -(-width // machines)
            rate = own[most - 1] if most <= len(own) else 0.0
            if rate > fastest:
                fastest = rate
                yield Branch(rate, kind, machines)


def _placed(cluster: Cluster, row: Sequence[Block], layers: int) -> tuple[tuple[int, int], ...]:
    """Give the runs of layers to the machines of each kind in index order."""
    waiting = {kind: list[tuple[int, int]]() for kind in cluster.kind_counts()}
    start = 0
    for block in row:
        end = min(start + block.layers, layers)
        for branch in block.branches:
            waiting[branch.kind] += _runs(start, end, branch.machines)
        start = end
    for mine in waiting.values():
        mine.reverse()
    return tuple(
        waiting[node.kind].pop() if waiting[node.kind] else UNUSED for node in cluster.nodes
    )


def _runs(start: int, end: int, machines: int) -> Iterator[tuple[int, int]]:
    """Yield near-equal runs from `start` to `end`, the longer ones first."""
    for number in range(machines):
        left = machines - number
        here = start + -(-(end - start) // left)
        if here > start:
            yield start, here
        start = here
