"""The cluster as the planner and the simulator see it: nodes and directed links.

Units: bytes per second, seconds.
"""

from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np

from common.errors import InputError
from helix.inputs.links import FIRST, SINK, SOURCE, Link, Links
from helix.inputs.machine import MachineKind, kind_named


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One machine: the name of its kind, where it stands and its figures."""

    kind: str
    region: str = ""
    machine: MachineKind

    @classmethod
    def of(cls, kind: str, region: str = "") -> "Node":
        """Return a machine of a shipped kind."""
        return cls(kind=kind, region=region, machine=kind_named(kind))


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """Machines, links in the order that numbers them, and the coordinator's network card."""

    nodes: tuple[Node, ...]
    links: Links
    nic_in: float = 10e9
    nic_out: float = 10e9

    def __post_init__(self) -> None:
        """Refuse empty clusters and links that cannot be."""
        if not self.nodes:
            raise InputError("cluster: there are no machines")
        places, links = len(self.nodes) + FIRST, self.links
        tails, heads = links.tails, links.heads
        inside = (tails >= 0) & (tails < places) & (heads > SOURCE) & (heads < places)
        again = np.ones(len(links), np.bool_)
        again[np.unique(tails * places + heads, return_index=True)[1]] = False
        odd = (tails == SINK) | (tails == heads) | again
        fast = (links.bandwidths > 0) & np.isfinite(links.bandwidths)
        near = (links.latencies >= 0) & np.isfinite(links.latencies)
        wrong = np.flatnonzero(~inside | odd | ~fast | ~near)
        if not len(wrong):
            return
        first = int(wrong[0])
        link = links[first]
        where = f"link {place_name(link.tail)} to {place_name(link.head)}"
        if not inside[first]:
            raise InputError(f"{where}: there is no such place among {len(self.nodes)} machines")
        if odd[first]:
            raise InputError(f"{where}: given twice, or not between two different places")
        if not fast[first]:
            raise InputError(f"{where}: bandwidth is {link.bandwidth}, expected above 0")
        raise InputError(f"{where}: latency is {link.latency}, expected 0 or more")

    def on_a_way(self) -> set[int]:
        """Return the indices of machines that links lead to from the coordinator and on to it."""
        both = self.links.reached(SOURCE) & self.links.reached(SINK, backwards=True)
        return {place - FIRST for place in both - {SOURCE, SINK}}

    def kind_counts(self) -> dict[str, int]:
        """Return how many machines of each kind there are."""
        return dict(Counter(node.kind for node in self.nodes))

    def of_kind(self, kind: str) -> "Cluster":
        """Return the cluster of one kind's machines alone, renumbered in their order."""
        return self.part([i for i, node in enumerate(self.nodes) if node.kind == kind])

    def part(self, indices: Sequence[int]) -> "Cluster":
        """Return the cluster of these machines alone, renumbered in the order given."""
        renumber = np.full(len(self.nodes) + FIRST, -1)
        renumber[[SOURCE, SINK]] = SOURCE, SINK
        renumber[np.array(indices, np.int64) + FIRST] = np.arange(len(indices)) + FIRST
        tails, heads = renumber[self.links.tails], renumber[self.links.heads]
        kept = self.links.which((tails >= 0) & (heads >= 0))
        links = Links(renumber[kept.tails], renumber[kept.heads], kept.bandwidths, kept.latencies)
        nodes = tuple(self.nodes[i] for i in indices)
        return msgspec.structs.replace(self, nodes=nodes, links=links)


def place_name(place: int) -> str:
    """Return a place as messages and files name it: source, sink or the node's index."""
    return {SOURCE: "source", SINK: "sink"}.get(place, str(place - FIRST))


def both_ways(pairs: list[tuple[int, int, float, float]], nodes: int) -> Links:
    """Return directed links in the original's order from (i, j, bandwidth, latency), i < j.

    Source and sink are the places `SOURCE` and `SINK`; source links come first, sink links next,
    then each pair of machines with its two directions.
    """
    rank = {SOURCE: -2, SINK: -1}
    ordered = sorted(pairs, key=lambda p: (rank.get(p[0], rank.get(p[1], p[0])), p[0], p[1]))
    links = list[Link]()
    for tail, head, bandwidth, latency in ordered:
        if not (tail < nodes + FIRST and head < nodes + FIRST):
            raise InputError(f"link {place_name(tail)} to {place_name(head)}: no such machine")
        links.append(Link(tail, head, bandwidth, latency))
        if tail != SOURCE and head != SINK:
            links.append(Link(head, tail, bandwidth, latency))
    return Links.of(links)
