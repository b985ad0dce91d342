"""Clusters on which there is one placement only, so that nothing is to be searched."""

import numpy as np

from helix.inputs.cluster import SINK, SOURCE
from helix.plan.placement import UNUSED
from helix.plan.question import Intervals, Question


def only_placement(question: Question) -> Intervals | None:
    """Return the one placement that work can pass through, None where there may be several.

    One machine holds the whole model, or all hold as much as they can and are alike, so that only
    names tell one order from another. Machines without links to and from them count as none.
    """
    layers, machines = question.model.layers, sorted(question.cluster.on_a_way())
    most = [
        min(question.profiles[question.cluster.nodes[i].kind].max_layers, layers) for i in machines
    ]
    if sum(most) != layers or (len(machines) > 1 and not alike(question)):
        return None
    runs, start = list[tuple[int, int]]([UNUSED] * len(question.cluster.nodes)), 0
    for machine, held in zip(machines, most, strict=True):
        runs[machine] = (start, start + held)
        start += held
    return tuple(runs)


def alike(question: Question) -> bool:
    """Say whether all machines are of one kind and all links of a sort alike."""
    cluster = question.cluster
    if len(cluster.kind_counts()) > 1:
        return False
    links, machines = cluster.links, len(cluster.nodes)
    if len(links) != machines * (machines + 1):
        return False
    sorts = links.tails == SOURCE, links.heads == SINK, ~links.outer
    return all(
        len(np.unique(figures[sort])) <= 1
        for sort in sorts
        for figures in (links.bandwidths, links.latencies)
    )
