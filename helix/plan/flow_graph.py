"""The flow network of a placement (section 4.2 of the paper) and its maximum flow.

A machine is three arcs in a row: its inbound card, its layers, its outbound card. All capacities
are tokens per second.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

from helix.inputs.cluster import FIRST, SINK, SOURCE, Cluster
from helix.inputs.model import Model
from helix.inputs.profile import Profiles
from helix.plan.flow import Flow
from helix.plan.max_flow import max_flow
from helix.plan.min_cost_flow import min_cost_max_flow
from helix.plan.placement import Placement
from helix.plan.throughput import OUTPUT_TOKENS, PROMPT_TOKENS, Throughput

IN, START, END, OUT = range(4)  # a node's vertices
TOKENS_PER_PASS = (PROMPT_TOKENS + OUTPUT_TOKENS) / (1 + OUTPUT_TOKENS)
"""Mean tokens that one pass of the mean request takes over a link."""


def _vertex(place: int, part: int) -> int:
    return 4 * place + part


BEGIN, FINISH = _vertex(SOURCE, IN), _vertex(SINK, OUT)


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """Arcs as arrays; the last `links` arcs are the placement's links in their order."""

    vertices: int
    tails: NDArray[np.int64]
    heads: NDArray[np.int64]
    capacities: NDArray[np.float64]  # tokens per second
    links: int


def network(cluster: Cluster, model: Model, placement: Placement, speed: Throughput) -> Network:
    """Return the flow network, with token bytes counted on every link as the simulator does."""
    arcs = list[tuple[int, int, float]]()
    only_in = _only(placement, "head", SOURCE)
    only_out = _only(placement, "tail", SINK)
    arcs.append((_vertex(SOURCE, IN), _vertex(SOURCE, OUT), cluster.nic_out / model.token_bytes))
    arcs.append((_vertex(SINK, IN), _vertex(SINK, OUT), cluster.nic_in / model.token_bytes))
    for index, node in enumerate(cluster.nodes):
        place, held = index + FIRST, placement.held(index + FIRST)
        size_in = model.token_bytes if only_in.get(place) else model.hop_bytes
        size_out = model.token_bytes if only_out.get(place) else model.hop_bytes
        rate = speed.rate(node.kind, held) if held else 0.0
        arcs.append((_vertex(place, IN), _vertex(place, START), node.machine.nic_in / size_in))
        arcs.append((_vertex(place, START), _vertex(place, END), rate))
        arcs.append((_vertex(place, END), _vertex(place, OUT), node.machine.nic_out / size_out))
    for link in placement.links:
        outer = link.tail == SOURCE or link.head == SINK
        size = model.token_bytes if outer else model.hop_bytes
        arcs.append((_vertex(link.tail, OUT), _vertex(link.head, IN), link.bandwidth / size))
    tails, heads, capacities = zip(*arcs, strict=True)
    return Network(
        vertices=4 * (len(cluster.nodes) + FIRST),
        tails=np.array(tails, np.int64),
        heads=np.array(heads, np.int64),
        capacities=np.array(capacities, np.float64),
        links=len(placement.links),
    )


def placement_flow(cluster: Cluster, model: Model, placement: Placement, speed: Throughput) -> Flow:
    """Return a maximum flow of the placement."""
    net = network(cluster, model, placement, speed)
    flow = max_flow(net.vertices, net.tails, net.heads, net.capacities, BEGIN, FINISH)
    return flow_of(net, placement, flow)


def least_latency_flow(
    cluster: Cluster, model: Model, profiles: Profiles, placement: Placement, speed: Throughput
) -> Flow:
    """Return the maximum flow along which a token is expected to arrive soonest.

    The split among equal maximum flows sets the routing weights and so the service's throughput
    (by up to 7 %); the original leaves it to the iteration order of a hash set.
    """
    net = network(cluster, model, placement, speed)
    costs = np.zeros(len(net.tails))
    for index, node in enumerate(cluster.nodes):
        arc = 2 + 3 * index + 1  # after the coordinator's two: in, through, out of each machine
        costs[arc] = placement.held(index + FIRST) * profiles[node.kind].decode.seconds[1]
    for number, link in enumerate(placement.links, len(net.tails) - net.links):
        outer = link.tail == SOURCE or link.head == SINK
        size = model.token_bytes if outer else model.hop_bytes
        costs[number] = link.latency + TOKENS_PER_PASS * size / link.bandwidth
    flow = min_cost_max_flow(
        net.vertices, net.tails, net.heads, net.capacities, costs, BEGIN, FINISH
    )
    return flow_of(net, placement, flow)


def flow_of(net: Network, placement: Placement, flow: NDArray[np.float64]) -> Flow:
    """Return the flow on every arc of the network as one by links."""
    links = flow[len(flow) - net.links :]
    out = [f for f, link in zip(links, placement.links, strict=True) if link.tail == SOURCE]
    return Flow(
        value=float(sum(out)),
        links=tuple(map(float, links)),
        capacities=tuple(map(float, net.capacities[len(flow) - net.links :])),
    )


def _only(placement: Placement, side: str, outer: int) -> dict[int, int]:
    """Return, by place, whether its only neighbour on that side is the coordinator."""
    around = dict[int, set[int]]()
    for link in placement.links:
        here, there = (link.head, link.tail) if side == "head" else (link.tail, link.head)
        around.setdefault(here, set()).add(there)
    return {place: int(others == {outer}) for place, others in around.items()}
