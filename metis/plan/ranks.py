"""Where every rank sits: the cluster laid out along one node sequence."""

from typing import NamedTuple

import msgspec

from common.errors import InputError
from metis.inputs.cluster import Cluster, Node


class Rank(NamedTuple):
    """One device: its type, the index of its node in rank order, its memory in MB."""

    device: str
    node: int
    memory_mb: float


class Ranks(msgspec.Struct, frozen=True):
    """All ranks of a cluster for one node sequence, and the nodes they sit on."""

    node_sequence: tuple[str, ...]
    nodes: tuple[Node, ...]
    ranks: tuple[Rank, ...]
    devices_per_node: int = 0
    """compat: the count that the original takes for every node."""

    def types(self, first: int, size: int) -> tuple[str, ...]:
        """Return the device type of each rank of a group."""
        return tuple(rank.device for rank in self.ranks[first : first + size])

    def node_span(self, first: int, size: int) -> tuple[int, int]:
        """Return the first and last node index of a group of ranks."""
        return self.ranks[first].node, self.ranks[first + size - 1].node

    def bandwidths(self, first: int, size: int) -> tuple[float, float]:
        """Return the least intra- and inter-node bandwidth (GB/s) of a group's nodes."""
        low, high = self.node_span(first, size)
        nodes = self.nodes[low : high + 1]
        return min(n.intra_bandwidth for n in nodes), min(n.inter_bandwidth for n in nodes)

    def most_per_node(self, first: int, size: int) -> int:
        """Return the largest number of the group's ranks on one node."""
        counts: dict[int, int] = {}
        for rank in self.ranks[first : first + size]:
            counts[rank.node] = counts.get(rank.node, 0) + 1
        return max(counts.values())


def place(cluster: Cluster, node_sequence: tuple[str, ...]) -> Ranks:
    """Give the ranks to the devices: all of the sequence's first type, then the next.

    Inside a type the nodes keep the user's order.
    """
    nodes = tuple(cluster.in_sequence(node_sequence))
    ranks = tuple(
        Rank(node.device, index, node.memory_mb)
        for index, node in enumerate(nodes)
        for _ in range(node.devices)
    )
    return Ranks(node_sequence, nodes, ranks)


def place_as_original(cluster: Cluster, node_sequence: tuple[str, ...]) -> Ranks:
    """Give the ranks out as the original does: every figure of a type is its first node's.

    It takes the device count of the very first machine for all of them when it looks for the
    node of a rank, whatever their real counts; where that leaves ranks without a node it stops
    with an IndexError.
    """
    machines = cluster.machines()
    size = machines[0].devices
    first: dict[str, Node] = {}
    for node in machines:
        first.setdefault(node.device, node)
    in_order = cluster.in_sequence(node_sequence)
    nodes = tuple(first[node.device] for node in in_order)
    types = [node.device for node in in_order for _ in range(node.devices)]
    if len(types) > size * len(nodes):
        raise InputError(
            f"the first of {len(nodes)} nodes has {size} devices and the cluster {len(types)}; the"
            " original stops here with an IndexError (put the largest node first, or use"
            " mode = 'strict')"
        )
    ranks = tuple(
        Rank(device, rank // size, first[device].memory_mb) for rank, device in enumerate(types)
    )
    return Ranks(node_sequence, nodes, ranks, size)
