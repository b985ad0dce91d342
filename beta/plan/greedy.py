"""Greedy replica placement: the most unserved model to the least asked group, again and again.

The core of selective replication, Clockwork++ and every search of AlpaServe (§4.2, Algorithm 1 in
its fast form): one simulation tells for all models at once where replicas are missing.
"""

import numpy as np

from beta.inputs.profile import Config
from beta.plan import greedy_kernel
from beta.plan.placement import Group, Placement, empty, used_bytes
from beta.plan.problem import Problem, Scored, evaluate
from beta.plan.ties import argsort


def greedy(problem: Problem, configs: tuple[Config, ...]) -> Scored:
    """Return the groups filled with replicas until memory holds no more, with their score."""
    return refill(problem, empty(configs))


def refill(problem: Problem, start: Placement) -> Scored:
    """Return a placement with replicas added until memory holds no more, with its score."""
    start = start.normalised()
    different, models = start.configs(), len(problem.models)
    tables, train = problem.tables(different), problem.known()
    groups = len(start.groups)
    config = np.array([different.index(group.config) for group in start.groups], np.int64)
    sizes = np.array([len(group.models) for group in start.groups], np.int64)
    members = np.zeros((groups, models), np.int64)
    for g, group in enumerate(start.groups):
        members[g, : sizes[g]] = group.models
    asked, good = np.zeros(groups, np.int64), np.zeros(models, np.int64)
    simulations, walked, latency = greedy_kernel.greedy(
        train.arrival,
        train.model,
        tables.slo,
        tables.stages,
        tables.latency,
        tables.weight,
        float(problem.cluster.memory_bytes),
        problem.switches.legacy_ties,
        config,
        members,
        sizes,
        asked,
        good,
    )
    placement = Placement(
        tuple(
            Group(different[int(c)], tuple(int(m) for m in row[:size]))
            for c, row, size in zip(config, members, sizes, strict=True)
        )
    )
    requests = len(problem.train)
    return Scored(placement, int(good.sum()), float(latency), requests, simulations, walked)


def readable_greedy(problem: Problem, configs: tuple[Config, ...]) -> Placement:
    """Return the same placement, found in plain steps: the twin that tests hold it equal to."""
    placement, grown = empty(configs), empty(configs)
    while grown is not None:
        placement, grown = grown.normalised(), _grown(problem, grown.normalised())
    return placement


def _grown(problem: Problem, placement: Placement) -> Placement | None:
    """Return the placement with one replica more, None if nothing fits."""
    counts, legacy = evaluate(problem, placement), problem.switches.legacy_ties
    unserved = counts.model_requests * (1 - counts.model_goodput)
    for g in map(int, argsort(counts.group_requests.astype(np.float64), legacy)):
        group = placement.groups[g]
        used = used_bytes(group, problem.models)
        for m in map(int, argsort(unserved, legacy)[::-1]):
            needed = problem.models[m].profile.memory_bytes(group.config)
            if m not in group.models and needed + used <= problem.cluster.memory_bytes:
                return placement.with_model(g, m)
    return None
