"""A maximum flow of least cost, by shortest augmenting paths: deterministic, compiled.

Every augmentation takes a cheapest path of the residual network (Bellman-Ford with a queue), so
the flow is a cheapest one of its value at every step, and at the end a cheapest maximum flow.
"""

import numpy as np

from common.kernels import compiled
from helix.plan.max_flow import LEAST, Floats, Ints, arcs_around

CHEAPER = 1e-12  # seconds that count as a difference


@compiled
def min_cost_max_flow(
    vertices: int, tails: Ints, heads: Ints, capacities: Floats, costs: Floats, s: int, t: int
) -> Floats:
    """Return the flow on each arc of a maximum flow from `s` to `t` of least total cost.

    Costs are per unit of flow and not negative. Among equally cheap paths the arcs' order decides.
    """
    first, steps, ends = arcs_around(vertices, tails, heads)
    flow = np.zeros(len(tails))
    came = np.empty(vertices, np.int64)
    while _cheapest(first, steps, ends, capacities, costs, flow, s, t, came):
        pushed, here = np.inf, t
        while here != s:
            arc = came[here]
            pushed = min(pushed, capacities[arc] - flow[arc] if arc >= 0 else flow[~arc])
            here = tails[arc] if arc >= 0 else heads[~arc]
        here = t
        while here != s:
            arc = came[here]
            if arc >= 0:
                flow[arc] += pushed
                here = tails[arc]
            else:
                flow[~arc] -= pushed
                here = heads[~arc]
    return flow


@compiled
def _cheapest(
    first: Ints, steps: Ints, ends: Ints, capacities: Floats, costs: Floats, flow: Floats,
    s: int, t: int, came: Ints,
) -> bool:  # fmt: skip
    """Fill in the arc by which each vertex is reached most cheaply; say whether `t` is."""
    vertices = len(first) - 1
    price = np.full(vertices, np.inf)
    waiting = np.zeros(vertices, np.bool_)
    queue = np.empty(vertices + 1, np.int64)  # a ring: no vertex waits twice
    price[s], queue[0], begin, end = 0.0, s, 0, 1
    while begin != end:
        here = queue[begin]
        begin = (begin + 1) % len(queue)
        waiting[here] = False
        for step in range(first[here], first[here + 1]):
            arc, there = steps[step], ends[step]
            room = capacities[arc] - flow[arc] if arc >= 0 else flow[~arc]
            offer = price[here] + (costs[arc] if arc >= 0 else -costs[~arc])
            if room > LEAST and offer < price[there] - CHEAPER:
                price[there], came[there] = offer, arc
                if not waiting[there]:
                    waiting[there] = True
                    queue[end] = there
                    end = (end + 1) % len(queue)
    return bool(price[t] < np.inf)
