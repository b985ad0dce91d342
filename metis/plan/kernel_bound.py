"""Compiled parts of the branch and bound: bounds of completions, and the search itself.

A layout is built from the front, one device group after the other. Arrays over (rank, size
index) describe the stage that would start there; NaN-free: a missing stage has `pace` 0.

Bound (spec of the cost model: Metis §3). With w_s the least time of one block on stage s over
all its strategies, L - 2 blocks on S stages take at least X = (L - 2) / sum_s(1 / w_s) on the
slowest stage, so
cost >= (B - 1) X + max(X, (L - 2) min_s w_s) + first layer + last layer + B (sync + batches).
A layout whose stages cannot hold all blocks in memory has no plan either.
"""

# numpy's stubs take elements of arrays for arrays; numba checks the types when it compiles.
# pyright: basic, reportArgumentType=false, reportReturnType=false

from typing import NamedTuple

import numpy as np

from common.kernels import compiled
from metis.plan.kernel_balance import tightest
from metis.plan.tables import Floats, Ints, Tables

SLACK = 1 + 1e-9
"""Bounds are compared with a little room for rounding."""

LOOKS = 2_000_000
"""Choices looked at in one call, so that the caller can watch the time."""


class StageBounds(NamedTuple):
    """Least values over all strategies of the stage that starts at a rank with a size."""

    pace: Floats
    """1 / w: blocks per ms; 0 where no stage can be."""
    first: Floats
    """First layer plus B times the batch generator, ms."""
    last: Floats
    """Last layer plus B times the time outside layers, ms."""
    room: Floats
    """Most blocks that fit with f micro-batches in flight, over (rank, size index, f - 1)."""


class Completions(NamedTuple):
    """Best values over all ways to finish with j stages from a rank, shape (S + 1, N + 1)."""

    pace: Floats
    """Largest sum of paces; -inf where there is no way."""
    fastest: Floats
    """Largest single pace."""
    last: Floats
    """Least last-stage value."""
    room: Floats
    """Most blocks that fit into memory."""


@compiled
def completions(bounds: StageBounds, sizes: Ints, allowed: Ints, stages: int) -> Completions:
    """Return the best completions by dynamic programming over (stages left, rank)."""
    devices = bounds.pace.shape[0]
    pace = np.full((stages + 1, devices + 1), -np.inf)
    fastest = np.full((stages + 1, devices + 1), -np.inf)
    last = np.full((stages + 1, devices + 1), np.inf)
    room = np.full((stages + 1, devices + 1), -np.inf)
    pace[0, devices] = fastest[0, devices] = room[0, devices] = 0.0
    for j in range(1, stages + 1):
        for r in range(devices):
            for k in allowed:
                end = r + sizes[k]
                if end > devices or bounds.pace[r, k] == 0.0 or pace[j - 1, end] == -np.inf:
                    continue
                pace[j, r] = max(pace[j, r], bounds.pace[r, k] + pace[j - 1, end])
                fastest[j, r] = max(fastest[j, r], bounds.pace[r, k], fastest[j - 1, end])
                ending = bounds.last[r, k] if j == 1 else last[j - 1, end]
                last[j, r] = min(last[j, r], ending)
                flight = min(j, bounds.room.shape[2]) - 1
                room[j, r] = max(room[j, r], bounds.room[r, k, flight] + room[j - 1, end])
    return Completions(pace, fastest, last, room)


@compiled
def _most_blocks(t: Tables, option: int, flight: int) -> int:
    """Return the most consecutive blocks that fit on a stage, -1 if not even one layer does."""
    layers = t.ranges.shape[1] - 1
    best = -1
    for first in range(layers):
        end = first + max(best, 0)
        while end < layers:
            demand, capacity = tightest(t, option, first, end + 1, flight)
            if demand > capacity:
                break
            end += 1
            best = max(best, min(end, layers - 1) - max(first, 1))
    return best


@compiled
def slot_rooms(t: Tables, b: int, flights: int) -> Floats:
    """Return the most blocks of every slot with 1..flights micro-batches in flight.

    -inf where no strategy holds a single layer, so that no layout has such a stage.
    """
    slots, degrees = t.option_of.shape[0], t.option_of.shape[1]
    rooms = np.full((slots, flights), -np.inf)
    for s in range(slots):
        for k in range(degrees):
            option = t.option_of[s, k, b]
            if option < 0:
                continue
            for f in range(flights):
                most = _most_blocks(t, option, f + 1)
                if most < 0:
                    break
                rooms[s, f] = max(rooms[s, f], float(most))
    return rooms


@compiled
def lower_bound(
    blocks: int, batches: int, pace: float, fastest: float, first: float, last: float
) -> float:
    """Return the cost bound of a (partial) layout from its paces and end values, ms."""
    slowest = blocks / pace
    return (batches - 1) * slowest + max(slowest, blocks / fastest) + first + last


@compiled
def root_bound(
    bounds: StageBounds,
    rest: Completions,
    sizes: Ints,
    allowed: Ints,
    stages: int,
    blocks: int,
    batches: int,
) -> float:
    """Return the least bound of all layouts with this number of stages; inf if there is none."""
    best, devices = np.inf, bounds.pace.shape[0]
    for k in allowed:
        end = sizes[k]
        if end > devices or bounds.pace[0, k] == 0.0 or rest.pace[stages - 1, end] == -np.inf:
            continue
        flight = min(stages, bounds.room.shape[2]) - 1
        if bounds.room[0, k, flight] + rest.room[stages - 1, end] < blocks:
            continue
        ending = bounds.last[0, k] if stages == 1 else rest.last[stages - 1, end]
        value = lower_bound(
            blocks,
            batches,
            bounds.pace[0, k] + rest.pace[stages - 1, end],
            max(bounds.pace[0, k], rest.fastest[stages - 1, end]),
            bounds.first[0, k],
            ending,
        )
        best = min(best, value)
    return best


@compiled
def _resume(
    bounds: StageBounds, sizes: Ints, allowed: Ints, stages: int, cursor: Ints
) -> tuple[Ints, Floats]:
    """Return rank and (pace, fastest, room) after every choice that the cursor has made."""
    rank, sums = np.zeros(stages + 1, dtype=np.int64), np.zeros((3, stages + 1))
    for d in range(cursor[stages]):
        _choose(bounds, sizes, stages, d, allowed[cursor[d] - 1], rank, sums)
    return rank, sums


@compiled
def _choose(
    bounds: StageBounds, sizes: Ints, stages: int, d: int, k: int, rank: Ints, sums: Floats
) -> None:
    """Write what holds after choosing size index k at depth d."""
    r, flight = rank[d], min(stages - d, bounds.room.shape[2]) - 1
    rank[d + 1] = r + sizes[k]
    sums[0, d + 1] = sums[0, d] + bounds.pace[r, k]
    sums[1, d + 1] = max(sums[1, d], bounds.pace[r, k])
    sums[2, d + 1] = sums[2, d] + bounds.room[r, k, flight]


@compiled
def _chosen_bound(
    bounds: StageBounds,
    rest: Completions,
    first_choice: int,
    last_choice: int,
    at: tuple[int, int, int],
    sums: Floats,
    work: tuple[int, int],
) -> float:
    """Return the bound after the choices so far, inf if memory cannot hold the blocks.

    `at`: rank of the last choice, rank after it, stages left; `sums`: (pace, fastest, room).
    """
    r, end, left = at
    blocks, batches = work
    if sums[2] + rest.room[left, end] < blocks:
        return np.inf
    ending = bounds.last[r, last_choice] if left == 0 else rest.last[left, end]
    return lower_bound(
        blocks,
        batches,
        sums[0] + rest.pace[left, end],
        max(sums[1], rest.fastest[left, end]),
        bounds.first[0, first_choice],
        ending,
    )


@compiled
def promising_layouts(
    bounds: StageBounds,
    rest: Completions,
    sizes: Ints,
    allowed: Ints,
    stages: int,
    blocks: int,
    batches: int,
    limit: float,
    cursor: Ints,
    found: Ints,
) -> int:
    """Write layouts whose bound does not exceed `limit` into `found` (rows of size indices).

    Depth first, groups ascending. `cursor` (S + 1 entries) holds the next choice of every depth
    and, in its last entry, the depth itself (-1: finished), so that a call goes on where the
    last one stopped. Returns the number of rows written.
    """
    devices, count, depth = bounds.pace.shape[0], 0, cursor[stages]
    rank, sums = _resume(bounds, sizes, allowed, stages, cursor)
    for _ in range(LOOKS):
        if depth < 0 or count == len(found):
            break
        if cursor[depth] == len(allowed):
            cursor[depth] = 0
            depth -= 1
            continue
        k = allowed[cursor[depth]]
        cursor[depth] += 1
        r, left = rank[depth], stages - depth - 1
        end = r + sizes[k]
        if end > devices or bounds.pace[r, k] == 0.0 or rest.pace[left, end] == -np.inf:
            continue
        _choose(bounds, sizes, stages, depth, k, rank, sums)
        first_choice = allowed[cursor[0] - 1]
        value = _chosen_bound(
            bounds, rest, first_choice, k, (r, end, left), sums[:, depth + 1], (blocks, batches)
        )
        if value > limit * SLACK:
            continue
        if left > 0:
            depth += 1
            continue
        for d in range(stages):
            found[count, d] = allowed[cursor[d] - 1]
        count += 1
    cursor[stages] = depth
    return count
