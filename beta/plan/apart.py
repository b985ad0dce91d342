"""Devices of their own for models of different latency, however many of both there are.

Where all splits of the devices are few enough, this is `mp-search-sep`'s search. Where they are
not, only splits near the clusters' shares of the work are tried, as many as may be simulated.
"""

from collections.abc import Iterator
from itertools import permutations
from math import comb

from beta.plan.partition import alone_s, clusters, device_splits, thinned
from beta.plan.placement import packed
from beta.plan.problem import Problem, Scored
from beta.plan.search import best_split

MOST_SPLITS = 20_000
"""Splits that are listed before they are thinned out."""
MOVED = 16
"""Near splits differ by this part of the devices."""


def search_apart(problem: Problem, budget: float, walked: int) -> Iterator[Scored]:
    """Yield placements of clusters apart until so many requests were simulated.

    `walked` is what the search of all models together took.
    """
    groups, devices = clusters(problem.models), problem.cluster.devices
    if not 1 < len(groups) <= devices:
        return
    if comb(devices - 1, len(groups) - 1) <= MOST_SPLITS:
        splits = device_splits(devices, len(groups), problem.cluster.devices_per_node)
        splits = thinned(splits, groups, problem.models)
        parts = {part for split in splits for part in enumerate(split)}
        if len(parts) * walked / 2 <= budget:
            found = best_split(problem, groups, splits)
            if found is not None and packed(found.placement, problem.cluster) is not None:
                yield found
            return
    for split in near_splits(problem, groups):
        found = best_split(problem, groups, [split])
        assert found is not None
        if packed(found.placement, problem.cluster) is not None:
            yield found
        budget -= found.walked
        if budget < walked:
            return


def near_splits(problem: Problem, groups: list[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
    """Yield the split by the clusters' shares of the device-seconds asked for, then its neighbours.

    Every cluster has a device at least.
    """
    devices = problem.cluster.devices
    work = [sum(problem.models[m].rate * alone_s(problem.models[m]) for m in g) for g in groups]
    total = sum(work) or 1.0
    free = devices - len(groups)
    shares = [free * w / total for w in work]
    split = [1 + int(share) for share in shares]
    rests = sorted(range(len(groups)), key=lambda i: int(shares[i]) - shares[i])
    for i in rests[: devices - sum(split)]:
        split[i] += 1
    yield tuple(split)
    step = max(devices // MOVED, 1)
    for giver, taker in permutations(range(len(groups)), 2):
        if split[giver] > step:
            moved = [*split]
            moved[giver], moved[taker] = moved[giver] - step, moved[taker] + step
            yield tuple(moved)
