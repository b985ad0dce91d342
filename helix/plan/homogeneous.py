"""The homogeneous placement: fast machines first, as many layers each as fit, pipeline by pipeline.

One of the original's heuristics: kinds by the layer rate of a full machine, the machines of a kind
in random order. Pipelines do not share machines or links; what is left over stays unused.
"""

import random
from collections.abc import Sequence
from itertools import pairwise

from common.errors import CaseError
from helix.inputs.cluster import FIRST, SINK, SOURCE, Cluster
from helix.inputs.model import Model
from helix.plan.placement import UNUSED, Placement, by_ends
from helix.plan.throughput import Throughput

Run = tuple[int, int, int]  # node, first layer, layer after the last


def homogeneous(cluster: Cluster, model: Model, speed: Throughput, seed: int = 0) -> Placement:
    """Return as many full pipelines as there are machines for.

    Raises CaseError if all machines together do not hold the model.
    """
    pipelines = _pipelines(_order(cluster, speed, seed), cluster, model.layers, speed)
    if not pipelines:
        raise CaseError(f"homogeneous: {model.layers} layers do not fit all machines together")
    held = {node: (start, end) for pipeline in pipelines for node, start, end in pipeline}
    intervals = [held.get(node, UNUSED) for node in range(len(cluster.nodes))]
    known = by_ends(cluster.links)
    links = [known[pair] for pipeline in pipelines for pair in _ends(pipeline) if pair in known]
    return Placement(layers=model.layers, intervals=tuple(intervals), links=tuple(links))


def _order(cluster: Cluster, speed: Throughput, seed: int) -> list[int]:
    """Return the nodes by the layer rate of their kind when full, shuffled within a kind."""

    def full_rate(kind: str) -> float:
        rates = speed.rates(kind)
        return rates[-1] * len(rates)

    draw, order = random.Random(seed), list[int]()
    for kind in sorted(cluster.kind_counts(), key=full_rate, reverse=True):
        own = [index for index, node in enumerate(cluster.nodes) if node.kind == kind]
        draw.shuffle(own)
        order += own
    return order


def _pipelines(
    order: Sequence[int], cluster: Cluster, layers: int, speed: Throughput
) -> list[list[Run]]:
    pipelines: list[list[Run]] = [[]]
    start = 0
    for node in order:
        end = min(layers, start + len(speed.rates(cluster.nodes[node].kind)))
        pipelines[-1].append((node, start, end))
        start = end
        if end == layers:
            pipelines.append([])
            start = 0
    return pipelines[:-1]  # the last one is empty or not complete


def _ends(pipeline: Sequence[Run]) -> list[tuple[int, int]]:
    places = [SOURCE, *(FIRST + node for node, _, _ in pipeline), SINK]
    return list(pairwise(places))
