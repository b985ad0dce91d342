"""The clusters of the paper: drawn exactly as the original's generators draw them.

The original draws with Python's `random` from seed 0; the order of draws fixes which machine is
of which kind and what every link between regions is worth, so it is kept.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

from helix.inputs.cluster import FIRST, SINK, SOURCE, Cluster, Node, both_ways

MB, MS = 1e6, 1e-3
EVEN_BANDWIDTH, EVEN_LATENCY = 1000 * MB, 1 * MS
IN_REGION = (1250.0, 125.0, 1.0, 0.0)  # MB/s and its spread, ms and its spread
CROSS_REGION = (12.5, 2.5, 50.0, 10.0)


def even(counts: Mapping[str, int], seed: int = 0) -> Cluster:
    """Return machines in drawn order, every pair joined by 1000 MB/s and 1 ms.

    The order of `counts` matters: kinds are laid out in it and then shuffled.
    """
    nodes = sum(counts.values())
    draw = random.Random(seed)
    pairs = list(combinations(range(nodes), 2))
    draw.sample(pairs, len(pairs))  # which pairs are joined: all, but the draw moves the stream
    draw.sample(range(nodes), nodes)
    draw.sample(range(nodes), nodes)
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    draw.shuffle(kinds)
    ends = _pairs(nodes)
    links = [(tail, head, EVEN_BANDWIDTH, EVEN_LATENCY) for tail, head in ends]
    return Cluster(nodes=tuple(map(Node.of, kinds)), links=both_ways(links, nodes))


def partitioned(regions: Sequence[Sequence[str]], seed: int = 0) -> Cluster:
    """Return machines of several regions; links across regions and to the coordinator are slow.

    The coordinator stands outside all regions. Values are rounded as the original prints them:
    whole MB/s above 100, one decimal below, whole milliseconds.
    """
    nodes = [Node.of(kind, f"r{r}") for r, kinds in enumerate(regions) for kind in kinds]
    draw = random.Random(seed)
    links = list[tuple[int, int, float, float]]()
    for tail, head in _pairs(len(nodes)):
        outside = tail == SOURCE or head == SINK
        near = not outside and nodes[tail - FIRST].region == nodes[head - FIRST].region
        speed, speed_spread, wait, wait_spread = IN_REGION if near else CROSS_REGION
        speed += draw.uniform(-speed_spread, speed_spread)
        wait += draw.uniform(-wait_spread, wait_spread)
        rounded = float(int(speed)) if speed > 100 else round(speed, 1)
        links.append((tail, head, rounded * MB, int(wait) * MS))
    return Cluster(nodes=tuple(nodes), links=both_ways(links, len(nodes)))


def _pairs(nodes: int) -> list[tuple[int, int]]:
    places = range(FIRST, FIRST + nodes)
    source = [(SOURCE, place) for place in places]
    return [*source, *((place, SINK) for place in places), *combinations(places, 2)]


def single24() -> Cluster:
    """Return the single cluster of 24 machines (section 6.3 of the paper)."""
    return even({"A100": 4, "T4": 12, "L4": 8})


def geo24() -> Cluster:
    """Return the 24 machines in three regions (section 6.4)."""
    return partitioned([["A100"] * 4, ["L4"] * 2 + ["T4"] * 8, ["L4"] * 6 + ["T4"] * 4])


def het42() -> Cluster:
    """Return the 42 machines of seven kinds (section 6.5)."""
    return even({"A100": 4, "V100": 6, "L4": 8, "L4x2": 4, "T4": 10, "T4x2": 6, "T4x4": 4})


def quality10() -> Cluster:
    """Return the 10 machines of the solution-quality study (section 6.9)."""
    return even({"T4": 6, "L4": 4})


CLUSTERS: dict[str, Callable[[], Cluster]] = {
    "single24": single24,
    "geo24": geo24,
    "het42": het42,
    "quality10": quality10,
}
