"""The whole greedy loop compiled: simulate, sort, pick, add, renumber; see `greedy` to read it.

After an addition only requests of models that share groups with the new replica, directly or by
others, can fare differently; only those are simulated again. Groups are kept in the order of
their models, so that numbers break ties as in the original.
"""

import numpy as np

from beta.inputs.arrays import Bools, Floats, Indices, Ints
from beta.plan.ties import argsort
from beta.simulate.tables import OVERHEAD_S
from common.kernels import compiled

NEVER = 1e100


@compiled
def candidates(members: Ints, sizes: Ints, first: Ints, groups: Ints) -> None:
    """Write each model's groups, ascending, as `groups[first[m]:first[m + 1]]`."""
    first[:] = 0
    for g in range(len(sizes)):
        for j in range(sizes[g]):
            first[members[g, j] + 1] += 1
    for m in range(len(first) - 1):
        first[m + 1] += first[m]
    ends = first[:-1].copy()
    for g in range(len(sizes)):
        for j in range(sizes[g]):
            m = members[g, j]
            groups[ends[m]] = g
            ends[m] += 1


@compiled
def component(
    group: int, members: Ints, sizes: Ints, first: Ints, groups: Ints, inside: Bools, near: Bools
) -> None:
    """Mark the models (`inside`) and groups (`near`) connected with a group."""
    inside[:], near[:] = False, False
    pending = np.empty(len(sizes), np.int64)
    pending[0], left = group, 1
    near[group] = True
    while left > 0:
        left -= 1
        g = pending[left]
        for j in range(sizes[g]):
            m = members[g, j]
            if inside[m]:
                continue
            inside[m] = True
            for i in range(first[m], first[m + 1]):
                if not near[groups[i]]:
                    near[groups[i]] = True
                    pending[left] = groups[i]
                    left += 1


@compiled
def count(
    arrival: Floats,
    model: Indices,
    slo: Floats,
    config: Ints,
    stages: Ints,
    latency: Floats,
    first: Ints,
    groups: Ints,
    inside: Bools,
    model_good: Ints,
    group_requests: Ints,
) -> tuple[int, float]:
    """Serve the requests of the marked models; count, and return how many and their latencies.

    The same rules as `simulate.fast.play`; here nothing is kept per request.
    """
    most = latency.shape[2]
    clock, times = np.zeros((len(config), most)), np.empty(most)
    last = np.zeros(len(config))
    served, total = 0, 0.0
    for i in range(len(arrival)):
        m = model[i]
        if not inside[m]:
            continue
        served += 1
        best, soonest = -1, NEVER
        for j in range(first[m], first[m + 1]):
            if last[groups[j]] < soonest:
                best, soonest = groups[j], last[groups[j]]
        if best < 0:
            continue
        now, c = arrival[i], config[best]
        depth = stages[c]
        for k in range(depth):
            now = max(now, clock[best, k]) + latency[m, c, k]
            times[k] = now
        group_requests[best] += 1
        spent = now + OVERHEAD_S - arrival[i]
        if spent <= slo[m]:
            for k in range(depth):
                clock[best, k] = times[k]
            last[best] = now
            model_good[m] += 1
            total += spent
    return served, total


@compiled
def _fits(
    model: int, group: int, members: Ints, sizes: Ints, config: Ints, weight: Floats, budget: float
) -> bool:
    c, used = config[group], 0.0
    for j in range(sizes[group]):
        if members[group, j] == model:
            return False
        used += weight[members[group, j], c]
    return weight[model, c] + used <= budget


@compiled
def _pick(
    unserved: Floats,
    group_requests: Ints,
    members: Ints,
    sizes: Ints,
    config: Ints,
    weight: Floats,
    budget: float,
    legacy: bool,
) -> tuple[int, int]:
    """Return the least asked group that can take a model, and of those the most unserved one."""
    by_model = argsort(unserved, legacy)
    for g in argsort(group_requests.astype(np.float64), legacy):
        for m in by_model[::-1]:
            if _fits(m, g, members, sizes, config, weight, budget):
                return g, m
    return -1, -1


@compiled
def _insert(row: Ints, size: int, model: int) -> None:
    j = size
    while j > 0 and row[j - 1] > model:
        row[j] = row[j - 1]
        j -= 1
    row[j] = model


@compiled
def _before(a: Ints, size_a: int, b: Ints, size_b: int) -> bool:
    """Say whether one list of models comes strictly before another."""
    for j in range(min(size_a, size_b)):
        if a[j] != b[j]:
            return a[j] < b[j]
    return size_a < size_b


@compiled
def _swap(g: int, h: int, members: Ints, sizes: Ints, config: Ints, group_requests: Ints) -> None:
    for j in range(members.shape[1]):
        members[g, j], members[h, j] = members[h, j], members[g, j]
    sizes[g], sizes[h] = sizes[h], sizes[g]
    config[g], config[h] = config[h], config[g]
    group_requests[g], group_requests[h] = group_requests[h], group_requests[g]


@compiled
def _renumber(g: int, members: Ints, sizes: Ints, config: Ints, group_requests: Ints) -> int:
    """Move a grown group to its place in the order of models, stably; return its place."""
    while g > 0 and _before(members[g], sizes[g], members[g - 1], sizes[g - 1]):
        _swap(g, g - 1, members, sizes, config, group_requests)
        g -= 1
    while g + 1 < len(sizes) and _before(members[g + 1], sizes[g + 1], members[g], sizes[g]):
        _swap(g, g + 1, members, sizes, config, group_requests)
        g += 1
    return g


@compiled
def greedy(
    arrival: Floats,
    model: Indices,
    slo: Floats,
    stages: Ints,
    latency: Floats,
    weight: Floats,
    budget: float,
    legacy: bool,
    config: Ints,
    members: Ints,
    sizes: Ints,
    group_requests: Ints,
    model_good: Ints,
) -> tuple[int, int, float]:
    """Add replicas to the groups (`config`, `members`, `sizes`, all in place) until none fits.

    `arrival`, `model` are requests of these models only. Leaves each group's asked requests and
    each model's good ones; returns simulations, requests simulated, and the sum of latencies.
    """
    models = len(slo)
    inside, near = np.ones(models, np.bool_), np.ones(len(sizes), np.bool_)
    first, groups = np.zeros(models + 1, np.int64), np.zeros(members.size, np.int64)
    requests = np.zeros(models)
    for m in model:
        requests[m] += 1
    candidates(members, sizes, first, groups)
    runs, walked = 1, len(arrival)
    count(
        arrival,
        model,
        slo,
        config,
        stages,
        latency,
        first,
        groups,
        inside,
        model_good,
        group_requests,
    )
    while True:
        unserved = requests * (1 - model_good / (requests + 1e-6))
        g, m = _pick(unserved, group_requests, members, sizes, config, weight, budget, legacy)
        if g < 0:
            break
        _insert(members[g], sizes[g], m)
        sizes[g] += 1
        g = _renumber(g, members, sizes, config, group_requests)
        candidates(members, sizes, first, groups)
        component(g, members, sizes, first, groups, inside, near)
        model_good[inside] = 0
        group_requests[near] = 0
        runs += 1
        walked += count(
            arrival,
            model,
            slo,
            config,
            stages,
            latency,
            first,
            groups,
            inside,
            model_good,
            group_requests,
        )[0]
    inside[:], model_good[:], group_requests[:] = True, 0, 0
    walked_last, total = count(
        arrival,
        model,
        slo,
        config,
        stages,
        latency,
        first,
        groups,
        inside,
        model_good,
        group_requests,
    )
    return runs + 1, walked + walked_last, total
