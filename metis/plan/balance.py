"""How layers are split over stages and samples over replicas (Metis §3, load balancing).

`sub_layer_split` is the original's heuristic with its faults; `min_max_split` is exact.
`split_samples` is the data balancer. The compiled twins live in `kernel.py`.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

SUB_LAYERS = 7
"""Parts of a layer in the original's balancer."""

UNOWNED = -1


def split_samples(speeds: Sequence[float], samples: int) -> tuple[int, ...]:
    """Return the samples of each replica, proportional to its speed.

    What rounding down leaves over goes one each to the largest fractions, first ones first.
    """
    total = sum(speeds)
    exact = [samples * (speed / total) for speed in speeds]
    shares = [int(value) for value in exact]
    fractions = [value - share for value, share in zip(exact, shares, strict=True)]
    order = sorted(range(len(speeds)), key=lambda i: -fractions[i])
    for i in order[: samples - sum(shares)]:
        shares[i] += 1
    return tuple(shares)


def min_max_split(
    layers: int,
    stages: int,
    time: Callable[[int, int, int], float],
    fits: Callable[[int, int, int], bool],
    *,
    allow_empty: bool = False,
) -> tuple[int, ...] | None:
    """Return the contiguous split with the least maximal stage time, or None if nothing fits.

    `time(stage, first, end)` and `fits(stage, first, end)` must be monotone: a larger range is
    never faster and never easier to fit. Exact to a relative 1e-9 (bisection). Of the two greedy
    fillings of the best bound, the one with the smaller sum of times is returned. Boundaries start
    with 0 and end with `layers`.
    """
    least = 0 if allow_empty else 1
    best = _fill(layers, stages, time, fits, float("inf"), least)
    if best is None:
        return None
    high, low = _bottleneck(best, time), _least_bottleneck(layers, stages, time, least)
    while high - low > 1e-9 * high:
        middle = 0.5 * (low + high)
        found = _fill(layers, stages, time, fits, middle, least)
        if found is None:
            low = middle
        else:
            best, high = found, _bottleneck(found, time)
    backward = _fill_backward(layers, stages, time, fits, high, least)
    return min(best, backward, key=lambda split: _total(split, time)) if backward else best


def _least_bottleneck(
    layers: int, stages: int, time: Callable[[int, int, int], float], least: int
) -> float:
    """Return a bound below every split: each stage holds a layer that it can reach."""
    if least == 0:
        return 0.0
    return max(
        min(time(s, layer, layer + 1) for layer in range(s, layers - stages + s + 1))
        for s in range(stages)
    )


def _bottleneck(split: Sequence[int], time: Callable[[int, int, int], float]) -> float:
    return max(time(s, split[s], split[s + 1]) for s in range(len(split) - 1))


def _total(split: Sequence[int], time: Callable[[int, int, int], float]) -> float:
    total = 0.0
    for s in range(len(split) - 1):
        total += time(s, split[s], split[s + 1])
    return total


def _fill(
    layers: int,
    stages: int,
    time: Callable[[int, int, int], float],
    fits: Callable[[int, int, int], bool],
    bound: float,
    least: int,
) -> tuple[int, ...] | None:
    """Fill stages from the front as far as `bound` and memory let them; None if layers remain.

    A full front can leave a later stage a first layer that is too large for it alone; then, and
    only then, emptier fronts have to be tried too.
    """
    split = [0]
    for s in range(stages):
        end = split[-1] + least
        limit = layers - least * (stages - 1 - s)
        if end > limit:
            return None
        if least and not _within(s, split[-1], end, time, fits, bound):
            return _fill_any(layers, stages, time, fits, bound)
        while end < limit and _within(s, split[-1], end + 1, time, fits, bound):
            end += 1
        split.append(end)
    return tuple(split) if split[-1] == layers else None


def _fill_any(
    layers: int,
    stages: int,
    time: Callable[[int, int, int], float],
    fits: Callable[[int, int, int], bool],
    bound: float,
) -> tuple[int, ...] | None:
    """Find any split with at least one layer per stage, over all boundaries that can be reached.

    For every stage's end only the latest reachable start counts: a shorter range never fits worse.
    """
    starts: list[list[int]] = []
    reached = {0}
    for s in range(stages):
        start_of = [-1] * (layers + 1)
        start = -1
        for end in range(1, layers + 1):
            start = end - 1 if end - 1 in reached else start
            if start >= 0 and _within(s, start, end, time, fits, bound):
                start_of[end] = start
        starts.append(start_of)
        reached = {end for end in range(layers + 1) if start_of[end] >= 0}
    if layers not in reached:
        return None
    split = [layers]
    for start_of in reversed(starts):
        split.append(start_of[split[-1]])
    return tuple(reversed(split))


def _fill_backward(
    layers: int,
    stages: int,
    time: Callable[[int, int, int], float],
    fits: Callable[[int, int, int], bool],
    bound: float,
    least: int,
) -> tuple[int, ...] | None:
    """Fill stages from the back as far as `bound` and memory let them; None where that ends."""
    split = [layers]
    for s in range(stages - 1, -1, -1):
        first = split[-1] - least
        limit = least * s
        if first < limit or (least and not _within(s, first, split[-1], time, fits, bound)):
            return None
        while first > limit and _within(s, first - 1, split[-1], time, fits, bound):
            first -= 1
        split.append(first)
    return tuple(reversed(split)) if split[-1] == 0 else None


def _within(
    s: int,
    first: int,
    end: int,
    time: Callable[[int, int, int], float],
    fits: Callable[[int, int, int], bool],
    bound: float,
) -> bool:
    return time(s, first, end) <= bound and fits(s, first, end)


def sub_layer_split(capacity: Sequence[float], layer_demand: Sequence[float]) -> tuple[int, ...]:
    """Return the original's split: cumulative counts of layers owned by each stage, from 0.

    `capacity` is the normalised stage performance, `layer_demand` the normalised layer times.
    Layers that no stage owns in majority are lost, so the last entry may be less than the number
    of layers, and stages may be empty (both are faults of the original, kept on purpose).
    """
    owner = _own_sub_layers(list(capacity), np.asarray(layer_demand) / SUB_LAYERS)
    owned = [_whole_layers(owner == s) for s in range(len(capacity))]
    left = _remaining(capacity, layer_demand, owned)
    _smooth(owned, left, layer_demand)
    return (0, *(int(c) for c in np.cumsum([len(layers) for layers in owned])))


def _own_sub_layers(capacity: list[float], demand: NDArray[np.float64]) -> NDArray[np.int64]:
    """Assign sub-layers: forward for all stages but the last, then backward, then the rest."""
    sub_demand = np.repeat(demand, SUB_LAYERS)
    count, last = len(sub_demand), len(capacity) - 1
    owner = np.full(count, UNOWNED)
    k = 0
    for s in range(last):
        # The last eight sub-layers are never taken here, and the one that overflows is dropped.
        for q in range(k, count - SUB_LAYERS - 1):
            k = q + 1
            if not capacity[s] > sub_demand[q]:
                break
            capacity[s] -= sub_demand[q]
            owner[q] = s
    smallest, taken = count, 0
    for q in range(count - 1, -1, -1):
        if owner[q] != UNOWNED:
            continue
        if taken < SUB_LAYERS or (q + 1 == smallest and capacity[last] > sub_demand[q]):
            capacity[last] -= sub_demand[q]
            owner[q] = last
            smallest, taken = q, taken + 1
    _assign_rest(owner, capacity, sub_demand)
    return owner


def _assign_rest(
    owner: NDArray[np.int64], capacity: list[float], sub_demand: NDArray[np.float64]
) -> None:
    """Give what is left to the roomiest stage between the neighbours that hold something."""
    last = len(capacity) - 1
    for q in np.flatnonzero(owner == UNOWNED):
        before, largest, after, smallest = 0, -1, last, len(owner)
        for s in range(last + 1):
            held = np.flatnonzero(owner == s)
            if len(held) and largest < held[-1] < q:
                before, largest = s, held[-1]
            if len(held) and q < held[0] < smallest:
                after, smallest = s, held[0]
        roomiest = max(range(before, after + 1), key=lambda s: capacity[s])
        capacity[roomiest] -= sub_demand[q]
        owner[q] = roomiest


def _whole_layers(mine: NDArray[np.bool_]) -> list[int]:
    """Return the layers of which a stage holds the majority of sub-layers."""
    held = mine.reshape(-1, SUB_LAYERS).sum(axis=1)
    return [int(layer) for layer in np.flatnonzero(held > SUB_LAYERS / 2)]


def _remaining(
    capacity: Sequence[float], layer_demand: Sequence[float], owned: list[list[int]]
) -> list[float]:
    """Return what each stage has left, layers inside its range that it lacks counted too."""
    left = list[float]()
    for room, layers in zip(capacity, owned, strict=True):
        used = sum(layer_demand[layers[0] : layers[-1] + 1]) if layers else 0.0
        left.append(room - used)
    return left


def _smooth(owned: list[list[int]], left: list[float], layer_demand: Sequence[float]) -> None:
    """Move border layers to the roomiest stage, at most three times, while its room shrinks."""
    for _ in range(3):
        before = max(left)
        to = left.index(before)
        neighbours = [s for s in (to - 1, to + 1) if 0 <= s < len(left)]
        if not neighbours:
            return
        source = min(neighbours, key=lambda s: left[s])
        if len(owned[source]) <= 1:
            continue
        layer = owned[source][-1 if source < to else 0]
        moved = list(left)
        moved[to] -= layer_demand[layer]
        moved[source] += layer_demand[layer]
        if max(moved) > before:
            return
        left[:] = moved
        owned[source].remove(layer)
        owned[to].append(layer)
        owned[to].sort()
