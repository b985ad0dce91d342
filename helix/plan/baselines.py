"""The placements the paper compares with: Petals and Swarm, as the original builds them.

Both place every machine. They draw with Python's `random` exactly as the original does, so equal
seeds give its files byte for byte.
"""

import random
from collections.abc import Sequence
from itertools import pairwise

from common.errors import InputError
from helix.inputs.cluster import FIRST, SINK, SOURCE, Cluster, Link
from helix.inputs.model import Model
from helix.plan.placement import Placement, by_ends, fits
from helix.plan.throughput import Throughput

Intervals = list[tuple[int, int]]


def petals(cluster: Cluster, model: Model, speed: Throughput, seed: int = 0) -> Placement:
    """Return Petals' placement: each machine joins where the layers are served worst.

    Machines come in random order and hold as many layers as they can; the run whose sorted layer
    throughputs are lexicographically least gets the next one (the first of equals). Work may enter
    a machine in the middle of its run (partial inference).
    """
    order = list(range(len(cluster.nodes)))
    random.Random(seed).shuffle(order)
    served = [0.0] * model.layers
    intervals: Intervals = [(0, 0)] * len(order)
    for index in order:
        rates = speed.rates(cluster.nodes[index].kind)
        width = min(len(rates), model.layers)
        start = min(range(model.layers - width + 1), key=lambda s: sorted(served[s : s + width]))
        intervals[index] = (start, start + width)
        for layer in range(start, start + width):
            served[layer] += rates[width - 1]
    return Placement(
        layers=model.layers,
        intervals=tuple(intervals),
        links=tuple(_petals_links(cluster, model.layers, intervals)),
    )


def _petals_links(cluster: Cluster, layers: int, intervals: Intervals) -> list[Link]:
    known = by_ends(cluster.links)
    places = range(FIRST, FIRST + len(intervals))
    ends = [(SOURCE, p) for p in places if intervals[p - FIRST][0] == 0]
    ends += [(p, SINK) for p in places if intervals[p - FIRST][1] == layers]
    for tail in places:
        mine = intervals[tail - FIRST]
        others = [p for p in places if p != tail and fits(mine, intervals[p - FIRST], True)]
        others.sort(key=lambda p: intervals[p - FIRST][0] != mine[1])  # whole runs first
        ends += [(tail, p) for p in others]
    return [known[pair] for pair in ends if pair in known]


def swarm(
    cluster: Cluster, model: Model, speed: Throughput, stages: int, seed: int = 0
) -> Placement:
    """Return Swarm's placement: equal stages, each machine to the one served worst so far."""
    width, rest = divmod(model.layers, stages)
    if rest:
        raise InputError(f"swarm: {model.layers} layers do not divide into {stages} stages")
    for node in cluster.nodes:
        if width > len(speed.rates(node.kind)):
            raise InputError(f"swarm: {width} layers a stage do not fit a {node.kind}")
    if len(cluster.nodes) < stages:
        raise InputError(f"swarm: {stages} stages need as many machines")
    ranked = sorted(
        ((speed.rate(node.kind, width), i) for i, node in enumerate(cluster.nodes)), reverse=True
    )
    members: list[list[int]] = [[] for _ in range(stages)]
    served = [0.0] * stages
    for rate, index in ranked:
        stage = served.index(min(served))
        members[stage].append(index)
        served[stage] += rate
    intervals: Intervals = [(0, 0)] * len(ranked)
    for stage, indices in enumerate(members):
        for index in indices:
            intervals[index] = (stage * width, (stage + 1) * width)
    links = _swarm_links(cluster, members, seed)
    return Placement(layers=model.layers, intervals=tuple(intervals), links=tuple(links))


def _swarm_links(cluster: Cluster, members: Sequence[Sequence[int]], seed: int) -> list[Link]:
    known, draw = by_ends(cluster.links), random.Random(seed)
    ends = [(SOURCE, FIRST + index) for index in members[0]]
    for stage, following in pairwise(members):
        for index in stage:  # the draw only permutes: nothing caps the number of links
            order = draw.sample(list(following), len(following))
            ends += [(FIRST + index, FIRST + other) for other in order]
    ends += [(FIRST + index, SINK) for index in members[-1]]
    return [known[pair] for pair in ends if pair in known]
