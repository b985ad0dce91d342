"""Orders of models and groups, with the tie-breaking of today's or of the original's numpy.

The original calls numpy's default argsort. Before numpy 1.25 that is an introsort: stable up to 16
keys, and above them an order of equal keys that the published placements depend on.
"""

import numpy as np

from beta.inputs.arrays import Floats, Ints
from common.kernels import compiled

SMALL = 16
"""Ranges of up to this many keys are sorted by insertion."""


@compiled
def _insertion(keys: Floats, order: Ints, low: int, high: int) -> None:
    """Sort `order[low:high + 1]` by insertion, which keeps equal keys in order."""
    for i in range(low + 1, high + 1):
        moving, j = order[i], i
        while j > low and keys[moving] < keys[order[j - 1]]:
            order[j] = order[j - 1]
            j -= 1
        order[j] = moving


@compiled
def _swap_if_less(keys: Floats, order: Ints, i: int, j: int) -> None:
    if keys[order[i]] < keys[order[j]]:
        order[i], order[j] = order[j], order[i]


@compiled
def _partition(keys: Floats, order: Ints, low: int, high: int) -> int:
    """Put the median of three in its place, smaller keys before it; return its place."""
    middle = low + (high - low) // 2
    _swap_if_less(keys, order, middle, low)
    _swap_if_less(keys, order, high, middle)
    _swap_if_less(keys, order, middle, low)
    pivot = keys[order[middle]]
    order[middle], order[high - 1] = order[high - 1], order[middle]
    i, j = low, high - 1
    while True:
        i += 1
        while keys[order[i]] < pivot:
            i += 1
        j -= 1
        while pivot < keys[order[j]]:
            j -= 1
        if i >= j:
            break
        order[i], order[j] = order[j], order[i]
    order[i], order[high - 1] = order[high - 1], order[i]
    return i


@compiled
def argsort(keys: Floats, legacy: bool) -> Ints:
    """Return the ascending order of the keys: stable, or as numpy 1.24 would (`legacy`)."""
    if not legacy or len(keys) <= SMALL:
        return np.argsort(keys, kind="mergesort").astype(np.int64)
    order = np.arange(len(keys))
    pending = np.empty((64, 2), np.int64)
    pending[0] = (0, len(keys) - 1)
    left = 1
    while left > 0:
        left -= 1
        low, high = pending[left]
        while high - low >= SMALL:
            i = _partition(keys, order, low, high)
            if i - low < high - i:
                pending[left] = (i + 1, high)
                high = i - 1
            else:
                pending[left] = (low, i - 1)
                low = i + 1
            left += 1
        _insertion(keys, order, low, high)
    return order


def argsort_scores(scores: list[float], legacy: bool) -> list[int]:
    """Return the ascending order of a list of scores."""
    return [int(i) for i in argsort(np.array(scores, np.float64), legacy)] if scores else []
