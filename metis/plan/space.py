"""The inter-stage search space: node sequences, device groups, number of micro-batches.

Metis §3 (inter-stage search); the order of enumeration is the original's, because ties between
plans of equal cost are broken by it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from math import isqrt
from typing import NamedTuple

Groups = tuple[int, ...]
"""Devices of every stage, in pipeline order."""


class Layout(NamedTuple):
    """One inter-stage plan without its number of micro-batches."""

    node_sequence: tuple[str, ...]
    groups: Groups
    phantom: bool = False
    """Costed on its first stage only (the original's defect)."""


def divisors_descending(number: int) -> list[int]:
    """Return all divisors from `number` down to 1: the candidate micro-batch counts."""
    small = [d for d in range(1, isqrt(number) + 1) if number % d == 0]
    return sorted({number // d for d in small} | set(small), reverse=True)


def group_sizes(
    devices: int, *, node_sizes: Sequence[int] = (), powers_of_two_only: bool = True
) -> list[int]:
    """Return the sizes a device group may have, ascending.

    Powers of two; in addition `node_sizes` (devices of a node, of a type) and the whole cluster,
    so that clusters of any size have plans along their natural borders.
    """
    sizes = {1 << k for k in range(devices.bit_length()) if 1 << k <= devices}
    if not powers_of_two_only:
        sizes |= {devices, *(size for size in node_sizes if size <= devices)}
    return sorted(sizes)


def smallest_group(devices: int, stages: int, variance: float) -> float:
    """Return the lower limit on group sizes for a stage count (the original's scale variance)."""
    return variance * max(devices // stages, stages // devices)


def group_multisets(devices: int, stages: int, sizes: Sequence[int]) -> Iterator[Groups]:
    """Yield every non-decreasing list of `stages` sizes that sums to `devices`.

    Lexicographic in the order of `sizes` (ascending).
    """
    chosen: list[int] = []

    def extend(index: int, left: int, missing: int) -> Iterator[Groups]:
        if missing == 0:
            if left == 0:
                yield tuple(chosen)
            return
        for position in range(index, len(sizes)):
            size = sizes[position]
            if size * missing > left:
                return
            if size + sizes[-1] * (missing - 1) < left:
                continue
            chosen.append(size)
            yield from extend(position, left - size, missing - 1)
            chosen.pop()

    yield from extend(0, devices, stages)


def device_groups(
    devices: int, stages: int, sizes: Sequence[int], *, variance: float, max_permute_len: int
) -> Iterator[Groups]:
    """Yield the device groups of every stage, each distinct ordering of each multiset."""
    lower = smallest_group(devices, stages, variance)
    allowed = [size for size in sizes if size >= lower]
    if not allowed:
        return
    for multiset in group_multisets(devices, stages, allowed):
        for units in multiset_permutations(merge_units(multiset, max_permute_len)):
            yield tuple(size for unit in units for size in unit)


def merge_units(groups: Groups, limit: int) -> list[Groups]:
    """Merge neighbouring equal groups until at most `limit` units are left, if that is possible.

    Units move together when orderings are enumerated, which bounds their number. The original's
    rule, its off-by-one in the run length included.
    """
    units: list[Groups] = [(group,) for group in groups]
    surplus = len(units) - limit
    while surplus > 0:
        units = _merge_pass(units, surplus)
        if surplus == len(units) - limit:
            break
        surplus = len(units) - limit
    return units


def _merge_pass(units: list[Groups], surplus: int) -> list[Groups]:
    size = sum(units[0])
    run = next((i for i, unit in enumerate(units) if unit != units[0]), len(units) - 1) + 1
    surplus = max(surplus, run // 2)
    merged: list[Groups] = []
    for i in range(0, len(units), 2):
        if surplus <= i / 2:
            return merged + units[i:]
        pair = units[i : i + 2]
        if len(pair) == 2 and all(sum(unit) == size for unit in pair):
            merged.append(pair[0] + pair[1])
        else:
            merged.extend(pair)
    return merged


def multiset_permutations(items: Sequence[Groups]) -> Iterator[list[Groups]]:
    """Yield every distinct permutation once, in the prefix-shift order of Williams (2009).

    A. Williams, "Loopless generation of multiset permutations using a constant number of
    variables by prefix shifts", SODA 2009. Starts from the non-increasing arrangement.
    """
    values = sorted(items, reverse=True)
    count = len(values)
    successor = [*range(1, count), -1]
    head, i, j = 0, max(count - 2, 0), count - 1

    def arrangement() -> list[Groups]:
        order, node = list[Groups](), head
        while node >= 0:
            order.append(values[node])
            node = successor[node]
        return order

    yield arrangement()
    while successor[j] >= 0 or values[j] < values[head]:
        s = j if successor[j] >= 0 and values[i] >= values[successor[j]] else i
        t = successor[s]
        successor[s] = successor[t]
        successor[t] = head
        if values[t] < values[head]:
            i = t
        j = successor[i]
        head = t
        yield arrangement()


def enumerate_layouts(
    node_types: Sequence[str],
    max_stages: int,
    groups_of: Callable[[int], Iterator[Groups]],
    *,
    phantom_pass: bool,
) -> Iterator[Layout]:
    """Yield every layout in the original's order (micro-batch counts are the innermost loop).

    `groups_of(stages)` gives the device groups of a stage count. With `phantom_pass`, every
    node sequence but the first starts with its first non-empty stage count >= 2 twice, the
    first time as phantoms, and skips one-stage layouts.
    """
    cached = {stages: list(groups_of(stages)) for stages in range(1, max_stages + 1)}
    for number, sequence in enumerate(permutations(node_types)):
        counts = [stages for stages in cached if cached[stages]]
        if phantom_pass and number > 0:
            counts = [stages for stages in counts if stages >= 2]
            for groups in cached[counts[0]] if counts else ():
                yield Layout(sequence, groups, phantom=True)
        for stages in counts:
            for groups in cached[stages]:
                yield Layout(sequence, groups)


def arrangements(units: Sequence[Groups]) -> int:
    """Return the number of distinct orderings of a multiset."""
    total, placed = 1, 0
    for times in Counter(units).values():
        for k in range(1, times + 1):
            placed += 1
            total = total * placed // k
    return total
