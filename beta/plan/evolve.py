"""Evolutionary search over groups and replicas (in AlpaServe's repository, not in its figures).

Placements multiply in proportion to their goodput; a child has replicas exchanged for models that
its parent serves badly, groups merged and groups split, and is then filled up. The original draws
without a seed; here it is fixed, and the generations that fit into the time limit, as counted
(`problem.PER_SECOND`), are done.
"""

import numpy as np

from beta.inputs.arrays import Floats
from beta.inputs.profile import SINGLE, Config
from beta.plan.greedy import refill
from beta.plan.partition import enumerations
from beta.plan.placement import Group, Placement, empty, packed, used_bytes
from beta.plan.problem import Problem, Scored, evaluate
from beta.plan.search import profiled

POPULATION, GENERATIONS = 64, 200
"""The original keeps 1024; a filled child is worth many unfilled ones."""
CHILD_S = 0.02
"""What making a child takes beside filling it, as counted."""
MUTATION, MERGE, SPLIT = 0.05, 0.08, 0.08
"""Chances: of a replica to be exchanged, of a group to be merged, to be split."""


def evolve(problem: Problem, time_limit_s: float) -> Scored:
    """Return the best placement met from all equal cuts of the cluster on: `mp-evo`."""
    cuts = enumerations(
        problem.cluster.devices,
        per_node=problem.cluster.devices_per_node,
        profiled=profiled(problem),
    )
    return _evolved(problem, [empty(cut) for cut in cuts], time_limit_s, recut=True)


def evolve_replicas(problem: Problem, time_limit_s: float) -> Scored:
    """Return the best placement met of replicas on single devices: `sr-evo`."""
    start = empty((SINGLE,) * problem.cluster.devices)
    return _evolved(problem, [start], time_limit_s, recut=False)


def _evolved(
    problem: Problem, starts: list[Placement], time_limit_s: float, *, recut: bool
) -> Scored:
    random, spent_s = np.random.default_rng(0), 0.0
    living = [refill(problem, start) for start in starts]
    simulations, walked = _work(living)
    for _ in range(GENERATIONS):
        fitness = np.array([scored.goodput + 1e-9 for scored in living])
        parents = random.choice(len(living), POPULATION, p=fitness / fitness.sum())
        children = list[Scored]()
        for parent in parents:
            if spent_s > time_limit_s:
                break
            child = _child(problem, living[int(parent)].placement, random, recut=recut)
            children.append(refill(problem, child))
            spent_s += children[-1].seconds + CHILD_S
        more = _work(children)
        simulations, walked = simulations + more[0], walked + more[1]
        unlike = {scored.placement: scored for scored in [*living, *children]}
        living = sorted(unlike.values(), key=lambda scored: -scored.score)[:POPULATION]
        if spent_s > time_limit_s or living[0].goodput >= 1:
            break
    best = max(living, key=lambda scored: scored.score)
    return best._replace(simulations=simulations, walked=walked)


def _work(scored: list[Scored]) -> tuple[int, int]:
    return sum(s.simulations for s in scored), sum(s.walked for s in scored)


def _child(
    problem: Problem, parent: Placement, random: np.random.Generator, *, recut: bool
) -> Placement:
    counts = evaluate(problem, parent)
    unserved = counts.model_requests * (1 - counts.model_goodput) + 1e-9
    groups = [_mutated(problem, group, unserved, random) for group in parent.groups]
    if recut:
        groups = _split(problem, _merged(problem, groups, random), random)
    child = Placement(tuple(groups))
    return parent if packed(child, problem.cluster) is None else child


def _mutated(
    problem: Problem, group: Group, unserved: Floats, random: np.random.Generator
) -> Group:
    """Exchange single replicas for models in proportion to their unserved requests."""
    for m in group.models:
        if random.random() < MUTATION:
            other = int(random.choice(len(unserved), p=unserved / unserved.sum()))
            kept = tuple(n for n in group.models if n not in (m, other))
            changed = Group(group.config, (*kept, other))
            if used_bytes(changed, problem.models) <= problem.cluster.memory_bytes:
                group = changed
    return group


def _merged(problem: Problem, groups: list[Group], random: np.random.Generator) -> list[Group]:
    """Make one deeper pipeline of two groups of one config, empty, here and there."""
    known, kept = profiled(problem), list[Group]()
    for group in groups:
        deeper = Config(group.config.op, 2 * group.config.pp)
        mates = [i for i, other in enumerate(kept) if other.config == group.config]
        if mates and deeper in known and random.random() < MERGE:
            kept[mates[-1]] = Group(deeper)
        else:
            kept.append(group)
    return kept


def _split(problem: Problem, groups: list[Group], random: np.random.Generator) -> list[Group]:
    """Make two pipelines of half the depth of a group, empty, here and there."""
    known, kept = profiled(problem), list[Group]()
    for group in groups:
        half = Config(group.config.op, group.config.pp // 2)
        if group.config.pp > 1 and half in known and random.random() < SPLIT:
            kept += [Group(half), Group(half)]
        else:
            kept.append(group)
    return kept
