"""Every plan of a tiny cluster, one by one: an oracle that shares no search with the package.

Nodes may stay idle; runs of equal nodes come in any order; devices that are used form contiguous
groups of any size; any power-of-two tensor degree, any layer split, any divisor of the batch,
anything recomputed that may be.
"""

from collections.abc import Iterator
from itertools import combinations, groupby, pairwise, permutations, product

from metis.inputs.cluster import Node
from metis.plan.memory import slacks
from metis.plan.problem import Problem
from metis.plan.ranks import Rank, Ranks
from metis.plan.stages import StageModel, StageOption
from metis.plan.walk import stage_cost


def node_orders(machines: list[Node]) -> set[tuple[Node, ...]]:
    """Every list of nodes that a plan may stand on, hosts left out."""
    plain = [
        (n.device, n.devices, n.memory_mb, n.intra_bandwidth, n.inter_bandwidth) for n in machines
    ]
    runs = [
        list(same)
        for device in dict.fromkeys(facts[0] for facts in plain)
        for _, same in groupby(facts for facts in plain if facts[0] == device)
    ]
    found = set()
    for order in permutations(runs):
        for counts in product(*(range(len(run) + 1) for run in order)):
            used = [run[0] for run, count in zip(order, counts, strict=True) for _ in range(count)]
            found.add(tuple(used))
    return {
        tuple(
            Node(device=d, devices=n, memory_mb=m, intra_bandwidth=a, inter_bandwidth=e)
            for d, n, m, a, e in used
        )
        for used in found
        if used
    }


def cuts(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """Every way to cut 0..total in so many non-empty parts."""
    for inner in combinations(range(1, total), parts - 1):
        yield (0, *inner, total)


def brute_force(problem: Problem) -> float | None:
    """Return the least cost of all plans, None if none fits."""
    best: float | None = None
    for nodes in node_orders(problem.cluster.machines()):
        ranks = tuple(
            Rank(n.device, i, n.memory_mb) for i, n in enumerate(nodes) for _ in range(n.devices)
        )
        types = tuple(dict.fromkeys(n.device for n in nodes))
        model = StageModel(problem, Ranks(types, nodes, ranks))
        for batches in problem.batches():
            for stages in range(1, min(len(ranks), problem.model.layers) + 1):
                for groups in cuts(len(ranks), stages):
                    for options in strategies(model, groups, batches):
                        cost = cheapest_split(problem, options, batches)
                        if cost is not None and (best is None or cost < best):
                            best = cost
    return best


def strategies(
    model: StageModel, groups: tuple[int, ...], batches: int
) -> Iterator[tuple[StageOption, ...]]:
    """Every valid choice of a tensor degree and of what is recomputed per stage."""
    each = []
    for first, end in pairwise(groups):
        size = end - first
        tps = [tp for tp in (1, 2, 4, 8) if size % tp == 0]
        found = [
            model.option(first, size, size // tp, tp, batches, kind)
            for tp in tps
            for kind in model.problem.savers.recompute
        ]
        each.append([option for option in found if option])
    yield from product(*each)


def cheapest_split(
    problem: Problem, options: tuple[StageOption, ...], batches: int
) -> float | None:
    """The least cost over all layer splits that fit."""
    best = None
    for split in cuts(problem.model.layers, len(options)):
        if min(slacks(options, split, batches)) >= 0:
            cost = stage_cost(options, split, problem, batches).total
            best = cost if best is None else min(best, cost)
    return best
