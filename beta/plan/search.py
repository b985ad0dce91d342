"""AlpaServe's search: the best enumeration of groups, each filled greedily (§4.2, Algorithm 2).

`search` takes all models together; `search_separated` also tries to give clusters of models with
different latency devices of their own, so that short requests do not wait behind long ones.
"""

from collections.abc import Iterator

from beta.inputs.profile import Config
from beta.plan.greedy import greedy
from beta.plan.partition import clusters, device_splits, enumerations, thinned
from beta.plan.placement import Placement
from beta.plan.problem import Problem, Scored, score

Solved = dict[tuple[int, int], Scored]
"""(cluster of models, devices) -> the best placement of its own models."""


def profiled(problem: Problem) -> frozenset[Config]:
    """Return the configs that some model is profiled under."""
    return frozenset(c for model in problem.models for c in model.profile.records)


def cuts_filled(problem: Problem) -> Iterator[Scored]:
    """Yield every cut of the cluster into groups of one config, filled greedily."""
    known = None if problem.switches.dead_leftovers else profiled(problem)
    cluster = problem.cluster
    for configs in enumerations(cluster.devices, per_node=cluster.devices_per_node, profiled=known):
        yield greedy(problem, configs)


def search(problem: Problem) -> Scored:
    """Return the best placement with groups of one config: `mp-search`."""
    return _best_of([*cuts_filled(problem)])


def search_separated(problem: Problem) -> Scored:
    """Return the better of all models together and clusters apart: `mp-search-sep`.

    Each cluster is solved once per number of devices; a split's score is the sum of its clusters',
    as their requests never meet.
    """
    together = search(problem)
    groups = clusters(problem.models)
    if len(groups) == 1 or len(groups) > problem.cluster.devices:
        return together
    splits = device_splits(problem.cluster.devices, len(groups), problem.cluster.devices_per_node)
    apart = best_split(problem, groups, thinned(splits, groups, problem.models))
    if apart is None:
        return together
    winner = apart if apart.score > score(problem, together.placement).score else together
    return winner._replace(
        simulations=together.simulations + apart.simulations,
        walked=together.walked + apart.walked,
    )


def best_split(
    problem: Problem, groups: list[tuple[int, ...]], splits: list[tuple[int, ...]]
) -> Scored | None:
    """Return the best of the splits of the devices over clusters; None where there is none."""
    if not splits:
        return None
    solved: Solved = {}
    for part in sorted({part for split in splits for part in enumerate(split)}):
        solved[part] = search(problem.part(groups[part[0]], part[1]))
    best = max(splits, key=lambda split: _sum([solved[p] for p in enumerate(split)]).score)
    apart = score(problem, _joined(groups, [solved[part] for part in enumerate(best)]))
    return apart._replace(
        simulations=sum(scored.simulations for scored in solved.values()),
        walked=sum(scored.walked for scored in solved.values()),
    )


def _best_of(found: list[Scored]) -> Scored:
    best = max(found, key=lambda scored: scored.score)
    return best._replace(
        simulations=sum(scored.simulations for scored in found),
        walked=sum(scored.walked for scored in found),
    )


def _sum(parts: list[Scored]) -> Scored:
    """Return the parts as one: requests of all of them are the same training requests."""
    return Scored(
        Placement(tuple(group for part in parts for group in part.placement.groups)),
        sum(part.good for part in parts),
        sum(part.latency_sum_s for part in parts),
        parts[0].requests,
    )


def _joined(groups: list[tuple[int, ...]], parts: list[Scored]) -> Placement:
    """Return the clusters' placements one after the other, models by their own numbers."""
    renamed = [part.placement.renamed(g) for g, part in zip(groups, parts, strict=True)]
    return Placement(tuple(group for placement in renamed for group in placement.groups))
