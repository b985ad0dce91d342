"""A placement as a row of blocks: a start for the search where one chain is not the best.

The layers are cut into blocks one after the other. A block's layers are served by branches side by
side, each a chain of machines that all pass the branch's rate, and the rates together are the
target flow. Only a few ways to split the target are worth a block: a machine gains layers only
where its rate falls to one that some machine has. How long a block of each split is and who stands
in it is a small integer problem; bisection finds the largest target at which the blocks cover all
layers. Annealing by single machines hardly gets from one such row to another, since parallel
branches only help once all of them are in place.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from common.errors import InputError
from helix.inputs.cluster import Cluster
from helix.plan.bounds import capped_compute_bound, chain_value
from helix.plan.clock import Clock
from helix.plan.placement import UNUSED
from helix.plan.solvers import solve
from helix.plan.solvers_matrix import INTEGER, Builder
from helix.plan.solvers_result import Settings
from helix.plan.throughput import Throughput

BRANCHES = 6  # side by side, at most
NEAR = 1e-3  # relative width at which the bisection ends
NODES = 1000  # of the solver's tree, for each target: the same answer on every machine
LAST_RESORT_S = 60.0  # for each target, where even that many nodes take too long
ROUNDING = 1e-9
LEAST_S = 0.01

Rates = Mapping[str, Sequence[float]]
"""By kind, tokens per second for 1, 2, ... layers held."""


Held = tuple[int, ...]
"""Layers by kind."""


class Branch(NamedTuple):
    """Machines in a row, by kind, and the flow that each of them passes, tokens/s."""

    rate: float
    machines: dict[str, int]


class Block(NamedTuple):
    """Layers that the branches serve side by side."""

    layers: int
    branches: tuple[Branch, ...]


def blocks(
    cluster: Cluster, layers: int, speed: Throughput, clock: Clock | None = None
) -> tuple[tuple[int, int], ...]:
    """Return each machine's run of layers in the best row of blocks; links are not looked at.

    Where time is up the best row until then is returned. Raises InputError where the machines do
    not hold the model in one chain.
    """
    counts = cluster.kind_counts()
    rates = {kind: speed.rates(kind) for kind in counts}
    single = [rates[node.kind] for node in cluster.nodes]
    low, high = chain_value(single, layers), capped_compute_bound(single, layers)
    time_s = clock.left if clock else lambda: LAST_RESORT_S
    best = row_of_blocks(rates, counts, layers, low) if low > 0 else None
    if best is None:
        raise InputError(f"blocks: {layers} layers do not fit these machines")
    while high - low > NEAR * high and time_s() > 0:
        target = (low + high) / 2
        row = row_of_blocks(rates, counts, layers, target, min(time_s(), LAST_RESORT_S))
        if row is None:
            high = target
        else:
            best, low = row, max(target, passed(row, rates))
    return _placed(cluster, best, rates)


def row_of_blocks(
    rates: Rates, counts: Mapping[str, int], layers: int, target: float,
    most_s: float = LAST_RESORT_S,
) -> tuple[Block, ...] | None:  # fmt: skip
    """Return blocks that together cover the layers at the target flow; None if none were found."""
    splits = _splits(rates, target)
    if not splits:
        return None
    b = Builder()
    lengths = [b.column(f"layers_{i}", INTEGER, cost=1.0, upper=layers) for i in range(len(splits))]
    machines = dict[tuple[int, int, str], int]()
    for i, split in enumerate(splits):
        for j, rate in enumerate(split):
            held = {kind: most_layers(own, rate) for kind, own in rates.items()}
            able = {kind: most for kind, most in held.items() if most}
            for kind in able:
                name = f"machines_{i}_{j}_{kind}"
                machines[i, j, kind] = b.column(name, INTEGER, upper=counts[kind])
            own = [(machines[i, j, kind], -float(most)) for kind, most in able.items()]
            b.row([(lengths[i], 1.0), *own], upper=0.0)
    for kind, count in counts.items():
        own = [(column, 1.0) for (_, _, k), column in machines.items() if k == kind]
        if own:
            b.row(own, upper=count)
    b.row([(length, 1.0) for length in lengths], upper=layers)
    settings = Settings(
        max_run_time=max(most_s, LEAST_S), nodes=NODES, upper_bound=layers, close=1 - ROUNDING
    )
    solved = solve(b.matrices(), settings)
    if solved.ended == "interrupted":
        raise KeyboardInterrupt
    if solved.x is None or solved.objective < layers - 0.5:
        return None
    x = [round(float(value)) for value in solved.x]
    return tuple(
        Block(
            x[lengths[i]], tuple(_branch(machines, x, i, j, rate) for j, rate in enumerate(split))
        )
        for i, split in enumerate(splits)
        if x[lengths[i]]
    )


def passed(row: Sequence[Block], rates: Rates) -> float:
    """Return the flow that a row passes, tokens/s: often more than the target it was made for."""
    return min(sum(_slowest(branch, rates) for branch in block.branches) for block in row)


def _slowest(branch: Branch, rates: Rates) -> float:
    own = [rates[kind] for kind in branch.machines]
    return min(one[most_layers(one, branch.rate) - 1] for one in own)


def most_layers(own: Sequence[float], rate: float) -> int:
    """Return the most layers with which a machine of these rates passes a flow; 0 if with none."""
    return max((k for k, passed in enumerate(own, 1) if passed >= rate), default=0)


def _branch(
    machines: Mapping[tuple[int, int, str], int], x: Sequence[int], i: int, j: int, rate: float
) -> Branch:
    used = {kind: x[n] for (one, other, kind), n in machines.items() if (one, other) == (i, j)}
    return Branch(rate, {kind: number for kind, number in used.items() if number})


def _splits(rates: Rates, target: float) -> list[tuple[float, ...]]:
    """Return the ways to split the target among branches that are not worse than another one."""
    found = dict[tuple[Held, ...], tuple[float, ...]]()
    for split in _rates_of_branches(rates, target):
        held = [tuple(most_layers(own, rate) for own in rates.values()) for rate in split]
        if all(any(most) for most in held):
            found.setdefault(tuple(sorted(held)), split)
    return [split for held, split in found.items() if not any(_worse(held, o) for o in found)]


def _worse(one: tuple[Held, ...], other: tuple[Held, ...]) -> bool:
    """Say whether machines of each kind hold no more layers in any branch than in another's."""
    if one == other or len(one) != len(other):
        return False
    return any(
        all(
            a <= b
            for mine, its in zip(one, turned, strict=True)
            for a, b in zip(mine, its, strict=True)
        )
        for turned in (other, other[::-1])
    )


def _rates_of_branches(rates: Rates, target: float) -> Iterator[tuple[float, ...]]:
    """Yield the target as one rate, as two, or, where no two reach it, as many and what is left.

    More branches than need be hardly cover more layers and make the problem far harder.
    """
    yield (target,)
    slower = sorted({rate for own in rates.values() for rate in own if 0 < rate < target})
    pairs = target < 2 * max(slower, default=0.0)
    for rate in slower:
        many = 1 if pairs else int(target / rate * (1 + ROUNDING))
        left = target - many * rate
        rest = (left,) if left > target * ROUNDING else ()
        if many + len(rest) <= BRANCHES:
            yield (rate,) * many + rest


def _placed(cluster: Cluster, row: Sequence[Block], rates: Rates) -> tuple[tuple[int, int], ...]:
    """Give the runs of layers to the machines of each kind in index order."""
    waiting = {kind: list[tuple[int, int]]() for kind in rates}
    start = 0
    for block in row:
        for branch in block.branches:
            for kind, run in _runs(block.layers, branch, rates):
                waiting[kind].append((start + run[0], start + run[1]))
        start += block.layers
    for mine in waiting.values():
        mine.reverse()
    return tuple(
        waiting[node.kind].pop() if waiting[node.kind] else UNUSED for node in cluster.nodes
    )


def _runs(layers: int, branch: Branch, rates: Rates) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield kinds and runs of layers from 0; what is not needed is taken off the longest runs."""
    kinds = [kind for kind, number in branch.machines.items() for _ in range(number)]
    held = [most_layers(rates[kind], branch.rate) for kind in kinds]
    for _ in range(sum(held) - layers):
        longest = max(range(len(held)), key=lambda i: held[i])
        held[longest] -= 1
    start = 0
    for kind, length in zip(kinds, held, strict=True):
        if length:
            yield kind, (start, start + length)
        start += length
