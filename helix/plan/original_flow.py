"""The maximum flow that the original takes among equals: networkx's preflow-push.

The original names vertices by text and so leaves ties to Python's hash seed; numbers make them
the same every time. Where a published result hangs on a tie, it is of the 42 machines alone.
"""

from typing import Any

import numpy as np

from helix.inputs.cluster import Cluster
from helix.inputs.model import Model
from helix.plan.flow import Flow
from helix.plan.flow_graph import BEGIN, FINISH, flow_of, network
from helix.plan.placement import Placement
from helix.plan.throughput import Throughput


def original_flow(cluster: Cluster, model: Model, placement: Placement, speed: Throughput) -> Flow:
    """Return the flow, whose split among the links sets the original's routing weights."""
    import networkx

    nx: Any = networkx  # its types are known in part only
    net, graph = network(cluster, model, placement, speed), nx.DiGraph()
    ends = list(zip(net.tails.tolist(), net.heads.tolist(), strict=True))
    for (tail, head), capacity in zip(ends, net.capacities.tolist(), strict=True):
        graph.add_edge(tail, head, capacity=capacity)
    flows = nx.maximum_flow(graph, BEGIN, FINISH)[1]
    return flow_of(net, placement, np.array([flows[tail][head] for tail, head in ends], float))
