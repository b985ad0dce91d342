"""Ways to cut a cluster into groups, and groups of devices into parts for clusters of models.

AlpaServe §4.2, Algorithm 2: all groups of one enumeration have one config, so that the search stays
small; models of different latency may get devices of their own.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from beta.inputs.model import Model
from beta.inputs.profile import SINGLE, Config

MOST_PP, MOST_OP = 8, 4
"""Largest degrees that `mp-search` tries."""
ALIKE = 0.38
"""Models whose latency differs by less than this share from a cluster's first join it."""
THRESHOLDS = (1.0, 0.5, 0.3, 0.2, 0.1)
FEW = 100
"""Device splits are thinned out until fewer than this remain."""


def powers_up_to(count: int) -> list[int]:
    """Return 1, 2, 4, ... up to `count`."""
    return [1 << i for i in range(count.bit_length())] if count > 0 else []


def powers_in(count: int) -> list[int]:
    """Return the powers of two that add up to `count`, ascending."""
    return [1 << i for i in range(count.bit_length()) if count >> i & 1]


def divisors(count: int) -> list[int]:
    """Return what divides `count`, ascending."""
    return [i for i in range(1, count + 1) if count % i == 0]


def enumerations(
    devices: int, *, per_node: int = 8, profiled: frozenset[Config] | None = None
) -> Iterator[tuple[Config, ...]]:
    """Yield the groups' configs of every way to cut `devices`, in the original's order.

    As many equal groups as go; what is left over forms pipelines of powers of two. With
    `profiled`, no group straddles nodes, and leftovers form pipelines that some model has a
    profile for.
    """
    for size in powers_up_to(devices):
        if size > per_node and size % per_node:
            continue
        if profiled is None:
            count, rest = devices // size, tuple(Config(1, pp) for pp in powers_in(devices % size))
        else:
            count, spare = inside_nodes(devices, size, per_node)
            sizes = sorted(pp for left in spare for pp in _profiled_sizes(left, profiled))
            rest = tuple(Config(1, pp) for pp in sizes)
        for pp in divisors(size):
            if count and pp <= MOST_PP and size // pp <= MOST_OP:
                yield (Config(size // pp, pp),) * count + rest


def inside_nodes(devices: int, size: int, per_node: int) -> tuple[int, list[int]]:
    """Return how many groups of a size lie inside nodes, and the devices left over in each node.

    Groups larger than a node are whole nodes; what they leave over is counted node by node too.
    """
    nodes = [per_node] * (devices // per_node) + [devices % per_node]
    if size > per_node:
        each = size // per_node
        count = 0 if size % per_node else (len(nodes) - 1) // each
        return count, [left for left in nodes[count * each :] if left]
    return sum(node // size for node in nodes), [node % size for node in nodes if node % size]


def _profiled_sizes(left: int, profiled: frozenset[Config]) -> list[int]:
    """Return pipelines that fill `left` devices, the largest profiled ones first taken."""
    sizes = list[int]()
    depths = sorted((config.pp for config in profiled if config.op == 1), reverse=True)
    for pp in depths:
        while pp <= left:
            sizes.append(pp)
            left -= pp
    return sorted(sizes)


def clusters(models: Sequence[Model]) -> list[tuple[int, ...]]:
    """Return the models by latency on one device: each joins the first cluster it is like."""
    found = list[list[int]]()
    heads = list[float]()
    for m, model in enumerate(models):
        latency = alone_s(model)
        fits = [i for i, head in enumerate(heads) if abs(latency - head) / head < ALIKE]
        if fits:
            found[fits[0]].append(m)
        else:
            found.append([m])
            heads.append(latency)
    return [tuple(cluster) for cluster in found]


def alone_s(model: Model) -> float:
    """Return the latency on one device, or on the fewest profiled ones, seconds."""
    records = model.profile.records
    config = SINGLE if SINGLE in records else min(records, key=lambda c: (c.devices, c))
    return sum(records[config].stage_s[1])


def device_splits(devices: int, parts: int, per_node: int = 8) -> list[tuple[int, ...]]:
    """Return the ways to give devices to clusters: below a node at will, above in whole nodes."""
    if parts == 1:
        return [(devices,)]
    found = list[tuple[int, ...]]()
    for last in range(1, devices):
        whole = (devices - last) % per_node == 0 or devices % per_node == 0
        if last <= devices % per_node or whole:
            found += [(*s, last) for s in device_splits(devices - last, parts - 1, per_node)]
    return found


def thinned(
    splits: list[tuple[int, ...]], groups: Sequence[Sequence[int]], models: Sequence[Model]
) -> list[tuple[int, ...]]:
    """Return the splits whose shares of speed are near the clusters' shares of the rate."""
    rates = np.array([sum(models[m].rate for m in group) for group in groups], np.float32)
    share = rates / rates.sum()
    latency = np.array([alone_s(models[group[0]]) for group in groups])
    speed = np.array(splits) / latency
    off = np.abs(share - speed / speed.sum(axis=1, keepdims=True)).max(axis=1)
    kept = splits
    for threshold in THRESHOLDS:
        if len(kept) < FEW:
            break
        kept = [split for split, o in zip(splits, off, strict=True) if o < threshold]
    return kept
