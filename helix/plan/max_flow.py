"""Maximum flow by Dinic's algorithm: a compiled kernel and its readable twin.

Flows and capacities are kept apart (not as residuals): a network card's capacity in tokens is
9 orders above a machine's, and a difference of the two would lose the digits that matter.
"""

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from common.kernels import compiled

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
LEAST = 1e-9  # tokens per second below which an arc counts as full


def max_flow(vertices: int, tails: Ints, heads: Ints, capacities: Floats, s: int, t: int) -> Floats:
    """Return the flow on each arc of a maximum flow from `s` to `t`."""
    return dinic(vertices, tails, heads, capacities, s, t)


def readable_max_flow(
    vertices: int, tails: Ints, heads: Ints, capacities: Floats, s: int, t: int
) -> Floats:
    """Return what `max_flow` returns, by the textbook: levels, then paths that rise by one."""
    flow = np.zeros(len(tails))
    around: list[list[tuple[int, int]]] = [[] for _ in range(vertices)]
    for arc in range(len(tails)):
        tail, head = int(tails[arc]), int(heads[arc])
        around[tail].append((arc, head))
        around[head].append((~arc, tail))  # ~arc: the same arc, walked backwards

    def room(arc: int) -> float:
        return float(capacities[arc] - flow[arc] if arc >= 0 else flow[~arc])

    def push(here: int, limit: float) -> float:
        if here == t:
            return limit
        while following[here]:
            arc, there = following[here][-1]
            if level[there] == level[here] + 1 and room(arc) > LEAST:
                pushed = push(there, min(limit, room(arc)))
                if pushed > 0:
                    flow[arc if arc >= 0 else ~arc] += pushed if arc >= 0 else -pushed
                    return pushed
            following[here].pop()
        return 0.0

    while (level := _levels(around, room, s))[t] >= 0:
        following = [arcs[::-1] for arcs in around]
        while push(s, np.inf) > 0:
            pass
    return flow


def _levels(
    around: Sequence[Sequence[tuple[int, int]]], room: Callable[[int], float], s: int
) -> list[int]:
    level = [-1] * len(around)
    level[s], queue = 0, deque([s])
    while queue:
        here = queue.popleft()
        for arc, there in around[here]:
            if level[there] < 0 and room(arc) > LEAST:
                level[there] = level[here] + 1
                queue.append(there)
    return level


@compiled
def dinic(vertices: int, tails: Ints, heads: Ints, capacities: Floats, s: int, t: int) -> Floats:
    """Return the same flow as `readable_max_flow`, arc for arc."""
    first, steps, ends = arcs_around(vertices, tails, heads)
    flow = np.zeros(len(tails))
    level = np.empty(vertices, np.int64)
    queue = np.empty(vertices, np.int64)
    path = np.empty(vertices, np.int64)
    while _find_levels(first, steps, ends, capacities, flow, s, level, queue, t):
        following = first[:-1].copy()
        while True:
            depth = _find_path(
                first, steps, ends, tails, heads, capacities, flow, s, t, level, following, path
            )
            if depth < 0:
                break
            _push(steps, path, depth, capacities, flow)
    return flow


@compiled
def arcs_around(vertices: int, tails: Ints, heads: Ints) -> tuple[Ints, Ints, Ints]:
    """Return each vertex's arcs in order: where they begin, the arc (~arc: backwards), its end."""
    first = np.zeros(vertices + 1, np.int64)
    for arc in range(len(tails)):
        first[tails[arc] + 1] += 1
        first[heads[arc] + 1] += 1
    for vertex in range(vertices):
        first[vertex + 1] += first[vertex]
    filled = first[:-1].copy()
    steps = np.empty(2 * len(tails), np.int64)
    ends = np.empty(2 * len(tails), np.int64)
    for arc in range(len(tails)):
        tail, head = tails[arc], heads[arc]
        steps[filled[tail]], ends[filled[tail]] = arc, head
        filled[tail] += 1
        steps[filled[head]], ends[filled[head]] = ~arc, tail
        filled[head] += 1
    return first, steps, ends


@compiled
def _room(arc: int, capacities: Floats, flow: Floats) -> float:
    return capacities[arc] - flow[arc] if arc >= 0 else flow[~arc]


@compiled
def _find_levels(
    first: Ints, steps: Ints, ends: Ints, capacities: Floats, flow: Floats, s: int,
    level: Ints, queue: Ints, t: int,
) -> bool:  # fmt: skip
    """Fill in every vertex's distance from `s` along arcs with room; say whether `t` has one."""
    level[:] = -1
    level[s] = 0
    queue[0] = s
    begin, end = 0, 1
    while begin < end:
        here = queue[begin]
        begin += 1
        for step in range(first[here], first[here + 1]):
            there = ends[step]
            if level[there] < 0 and _room(int(steps[step]), capacities, flow) > LEAST:
                level[there] = level[here] + 1
                queue[end] = there
                end += 1
    return level[t] >= 0


@compiled
def _find_path(
    first: Ints, steps: Ints, ends: Ints, tails: Ints, heads: Ints, capacities: Floats,
    flow: Floats, s: int, t: int, level: Ints, following: Ints, path: Ints,
) -> int:  # fmt: skip
    """Fill `path` with steps from `s` to `t`; return its length, or -1 when there is none left."""
    depth, here = 0, s
    while here != t:
        if following[here] < first[here + 1]:
            step = following[here]
            there = ends[step]
            if (
                level[there] == level[here] + 1
                and _room(int(steps[step]), capacities, flow) > LEAST
            ):
                path[depth] = step
                depth += 1
                here = there
            else:
                following[here] += 1
        elif depth == 0:
            return -1
        else:
            depth -= 1
            arc = steps[path[depth]]
            here = tails[arc] if arc >= 0 else heads[~arc]
            following[here] += 1
    return depth


@compiled
def _push(steps: Ints, path: Ints, depth: int, capacities: Floats, flow: Floats) -> None:
    """Add to the flow what the path has room for."""
    pushed = np.inf
    for i in range(depth):
        pushed = min(pushed, _room(int(steps[path[i]]), capacities, flow))
    for i in range(depth):
        arc = steps[path[i]]
        if arc >= 0:
            flow[arc] += pushed
        else:
            flow[~arc] -= pushed
