"""The cluster as the planner and the simulator see it: nodes and directed links.

Places are numbered as in the original: the coordinator's two faces are `SOURCE` and `SINK`, the
node of index i is place `FIRST + i`. Units: bytes per second, seconds.
"""

import math
from collections import Counter
from collections.abc import Sequence

import msgspec

from common.errors import InputError
from helix.inputs.machine import MachineKind, kind_named

SOURCE, SINK, FIRST = 0, 1, 2


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One machine: the name of its kind, where it stands and its figures."""

    kind: str
    region: str = ""
    machine: MachineKind

    @classmethod
    def of(cls, kind: str, region: str = "") -> "Node":
        """Return a machine of a shipped kind."""
        return cls(kind=kind, region=region, machine=kind_named(kind))


class Link(msgspec.Struct, frozen=True):
    """A directed link between two places; bytes per second, seconds."""

    tail: int
    head: int
    bandwidth: float
    latency: float


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """Machines, links in the order that numbers them, and the coordinator's network card."""

    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    nic_in: float = 10e9
    nic_out: float = 10e9

    def __post_init__(self) -> None:
        """Refuse empty clusters and links that cannot be."""
        if not self.nodes:
            raise InputError("cluster: there are no machines")
        places = len(self.nodes) + FIRST
        seen = set[tuple[int, int]]()
        for link in self.links:
            where = f"link {place_name(link.tail)} to {place_name(link.head)}"
            if not (0 <= link.tail < places and 0 <= link.head < places and link.head != SOURCE):
                raise InputError(
                    f"{where}: there is no such place among {len(self.nodes)} machines"
                )
            if link.tail in (SINK, link.head) or (link.tail, link.head) in seen:
                raise InputError(f"{where}: given twice, or not between two different places")
            if not (0 < link.bandwidth < math.inf):
                raise InputError(f"{where}: bandwidth is {link.bandwidth}, expected above 0")
            if not (0 <= link.latency < math.inf):
                raise InputError(f"{where}: latency is {link.latency}, expected 0 or more")
            seen.add((link.tail, link.head))

    def on_a_way(self) -> set[int]:
        """Return the indices of machines that links lead to from the coordinator and on to it."""
        onward = {(link.tail, link.head) for link in self.links}
        back = {(head, tail) for tail, head in onward}
        both = _reached(SOURCE, onward) & _reached(SINK, back)
        return {place - FIRST for place in both - {SOURCE, SINK}}

    def kind_counts(self) -> dict[str, int]:
        """Return how many machines of each kind there are."""
        return dict(Counter(node.kind for node in self.nodes))

    def of_kind(self, kind: str) -> "Cluster":
        """Return the cluster of one kind's machines alone, renumbered in their order."""
        return self.part([i for i, node in enumerate(self.nodes) if node.kind == kind])

    def part(self, indices: Sequence[int]) -> "Cluster":
        """Return the cluster of these machines alone, renumbered in the order given."""
        renumber = {SOURCE: SOURCE, SINK: SINK}
        renumber |= {old + FIRST: i + FIRST for i, old in enumerate(indices)}
        links = tuple(
            Link(renumber[link.tail], renumber[link.head], link.bandwidth, link.latency)
            for link in self.links
            if link.tail in renumber and link.head in renumber
        )
        nodes = tuple(self.nodes[i] for i in indices)
        return msgspec.structs.replace(self, nodes=nodes, links=links)


def _reached(start: int, steps: set[tuple[int, int]]) -> set[int]:
    reached, before = {start}, set[int]()
    while reached != before:
        before = reached
        reached = before | {head for tail, head in steps if tail in before}
    return reached


def place_name(place: int) -> str:
    """Return a place as messages and files name it: source, sink or the node's index."""
    return {SOURCE: "source", SINK: "sink"}.get(place, str(place - FIRST))


def both_ways(pairs: list[tuple[int, int, float, float]], nodes: int) -> tuple[Link, ...]:
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
    return tuple(links)
