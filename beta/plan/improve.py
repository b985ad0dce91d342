"""Local search from AlpaServe's answer: groups are emptied, recut, refilled, replicas exchanged.

Not in the paper. Every step is scored on the training workload and kept only if it is better, so
the answer is never worse than the one it starts from. Steps are drawn from a fixed seed, as many as
fit into the time limit, as counted (`problem.PER_SECOND`).
"""

from collections.abc import Callable

import numpy as np

from beta.inputs.profile import Config
from beta.plan.greedy import refill
from beta.plan.partition import MOST_OP, MOST_PP, divisors
from beta.plan.placement import Group, Placement, packed, used_bytes
from beta.plan.problem import EACH, PER_SECOND, Problem, Scored, score
from beta.plan.search import profiled, search_separated

Step = Callable[[Problem, Placement, np.random.Generator], Scored | None]


def improve(problem: Problem, time_limit_s: float) -> Scored:
    """Return the best placement met from `mp-search-sep`'s answer on: `mp-improve`."""
    start = search_separated(problem)
    return local_search(problem, start, time_limit_s)


def local_search(
    problem: Problem, start: Scored, time_limit_s: float, steps: int | None = None
) -> Scored:
    """Return the best placement met from a given one on, within seconds and steps."""
    random = np.random.default_rng(0)
    best, tried, spent_s = score(problem, start.placement), 0, 0.0
    simulations, walked = start.simulations, start.walked
    while spent_s < time_limit_s and (steps is None or tried < steps) and best.goodput < 1:
        found = _MOVES[tried % len(_MOVES)](problem, best.placement, random)
        tried += 1
        if found is None:
            spent_s += EACH / PER_SECOND
            continue
        spent_s += found.seconds
        simulations, walked = simulations + found.simulations, walked + found.walked
        if found.score > best.score:
            best = found
    return best._replace(simulations=simulations, walked=walked)


def _refilled(problem: Problem, placement: Placement, random: np.random.Generator) -> Scored | None:
    """Empty one or two groups and fill them again beside the others."""
    count = min(int(random.integers(1, 3)), len(placement.groups))
    chosen = {int(g) for g in random.choice(len(placement.groups), count, replace=False)}
    groups = [
        Group(group.config) if g in chosen else group for g, group in enumerate(placement.groups)
    ]
    return refill(problem, Placement(tuple(groups)))


def _recut(problem: Problem, placement: Placement, random: np.random.Generator) -> Scored | None:
    """Cut the devices of one or two groups into equal groups of another config, and fill them."""
    count = min(int(random.integers(1, 3)), len(placement.groups))
    chosen = {int(g) for g in random.choice(len(placement.groups), count, replace=False)}
    devices = sum(placement.groups[g].config.devices for g in chosen)
    known = profiled(problem)
    sizes = [size for size in divisors(devices) if size <= problem.cluster.devices_per_node]
    options = [
        (Config(size // pp, pp), devices // size)
        for size in sizes
        for pp in divisors(size)
        if pp <= MOST_PP and size // pp <= MOST_OP and Config(size // pp, pp) in known
    ]
    if not options:
        return None
    config, number = options[int(random.integers(len(options)))]
    kept = [group for g, group in enumerate(placement.groups) if g not in chosen]
    cut = Placement((*kept, *(Group(config),) * number))
    return None if packed(cut, problem.cluster) is None else refill(problem, cut)


def _exchanged(
    problem: Problem, placement: Placement, random: np.random.Generator
) -> Scored | None:
    """Put another model in the place of one replica, and fill what room is left."""
    g = int(random.integers(len(placement.groups)))
    group = placement.groups[g]
    absent = [
        m
        for m, model in enumerate(problem.models)
        if m not in group.models and np.isfinite(model.profile.memory_bytes(group.config))
    ]
    if not group.models or not absent:
        return None
    out = int(random.choice(group.models))
    models = (*(m for m in group.models if m != out), int(random.choice(absent)))
    changed = Group(group.config, models)
    if used_bytes(changed, problem.models) > problem.cluster.memory_bytes:
        return None
    groups = (*placement.groups[:g], changed, *placement.groups[g + 1 :])
    return refill(problem, Placement(groups))


_MOVES: tuple[Step, ...] = (_exchanged, _recut, _exchanged, _refilled)
