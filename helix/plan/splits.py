"""Which of a placement's several maximum flows sets the routing weights.

All pass the same; the service's throughput differs by up to a tenth all the same, and which is best
differs from placement to placement.
"""

from collections.abc import Callable

import numpy as np

from helix.inputs.cluster import Cluster
from helix.inputs.model import Model
from helix.inputs.profile import Profiles
from helix.inputs.search import Split
from helix.plan.flow import Flow
from helix.plan.flow_graph import (
    BEGIN,
    FINISH,
    flow_of,
    least_latency_flow,
    network,
    placement_flow,
)
from helix.plan.min_cost_flow import min_cost_max_flow
from helix.plan.original_flow import original_flow
from helix.plan.placement import Placement
from helix.plan.throughput import Throughput

STEPS = 8  # of Frank and Wolfe's method


def split_flow(
    split: Split, cluster: Cluster, model: Model, profiles: Profiles, placement: Placement,
    speed: Throughput,
) -> Flow:  # fmt: skip
    """Return the maximum flow of that name."""
    if split == "least-latency":
        return least_latency_flow(cluster, model, profiles, placement, speed)
    make: dict[str, Callable[[Cluster, Model, Placement, Throughput], Flow]] = {
        "max-flow": placement_flow, "balanced": balanced_flow, "original": original_flow
    }  # fmt: skip
    return make[split](cluster, model, placement, speed)


def balanced_flow(cluster: Cluster, model: Model, placement: Placement, speed: Throughput) -> Flow:
    """Return the maximum flow that uses machines and links evenly.

    It minimises the sum of squares of what machines use of their rate and links of the whole flow,
    by Frank and Wolfe: each step takes the maximum flow that is cheapest at the use so far, and the
    mean of maximum flows is one.
    """
    net = network(cluster, model, placement, speed)
    mean = np.zeros(len(net.tails))
    units = np.where(net.capacities > 0, net.capacities, 1.0)
    for step in range(1, STEPS + 1):
        costs = np.maximum(mean, 0.0) / units
        flow = min_cost_max_flow(
            net.vertices, net.tails, net.heads, net.capacities, costs, BEGIN, FINISH
        )
        total = flow_of(net, placement, flow).value
        units[len(units) - net.links :] = max(total, 1.0)
        mean += (flow - mean) / step
    return flow_of(net, placement, mean)
