"""Fewer links for the MILP (section 4.5 of the paper): every place keeps its fastest ones.

Among equally fast links the original keeps those whose names come last as text, so node 9's are
in and node 10's are out; where all links are equal that leaves a few machines with all links and
the warm start without its own. Here lower latency decides, then how far apart the indices are on
a ring, which spreads links evenly, and links that a known placement uses can be kept.
"""

from collections.abc import Iterable, Sequence

import msgspec

from common.errors import InputError
from helix.inputs.cluster import FIRST, SINK, SOURCE, Cluster, Link, place_name
from helix.inputs.links import Links

Key = tuple[float | str, ...]


class Pruning(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many links are kept.

    The coordinator keeps its `min_keep` fastest links out and in, and up to `max_keep` those
    above `threshold` (bytes per second). A machine keeps its `min_keep` fastest; a pair of
    machines stays joined if either keeps it. `compat`: ties and order as the original.
    """

    min_keep: int = 12
    max_keep: int = 12
    threshold: float = 1.0
    compat: bool = False

    def __post_init__(self) -> None:
        """Refuse counts that keep nothing."""
        if not 1 <= self.min_keep <= self.max_keep:
            raise InputError(
                f"pruning: min_keep {self.min_keep} and max_keep {self.max_keep}: "
                "expected 1 <= min_keep <= max_keep"
            )


def pruned(cluster: Cluster, pruning: Pruning, keep: Iterable[Link] = ()) -> Cluster:
    """Return the cluster with the links that pruning leaves, and those of `keep` in any case.

    Passing a placement's links as `keep` lets it be the solver's warm start.
    """
    kept = _coordinator_links(cluster, pruning) | _machine_links(cluster, pruning)
    kept |= {_pair(link) for link in keep}
    links = [link for link in cluster.links if _pair(link) in kept]
    if pruning.compat:
        links.sort(key=_original_order)
    return msgspec.structs.replace(cluster, links=Links.of(links))


def _pair(link: Link) -> tuple[int, int]:
    """Return the places of an undirected link; source links stay apart from sink links."""
    if link.tail == SOURCE or link.head == SINK:
        return link.tail, link.head
    return min(link.tail, link.head), max(link.tail, link.head)


def _coordinator_links(cluster: Cluster, pruning: Pruning) -> set[tuple[int, int]]:
    def key(link: Link) -> Key:
        index = max(link.tail, link.head) - FIRST
        if pruning.compat:
            return link.bandwidth, index
        return link.bandwidth, -link.latency, -min(index, len(cluster.nodes) - index)

    kept = set[tuple[int, int]]()
    for side in ("tail", "head"):
        end = {"tail": SOURCE, "head": SINK}[side]
        own = [link for link in cluster.links if getattr(link, side) == end]
        for rank, link in enumerate(sorted(own, key=key, reverse=True)):
            more = rank < pruning.max_keep and link.bandwidth > pruning.threshold
            if rank < pruning.min_keep or more:
                kept.add(_pair(link))
    return kept


def _machine_links(cluster: Cluster, pruning: Pruning) -> set[tuple[int, int]]:
    def key(link: Link) -> Key:
        if pruning.compat:
            return link.bandwidth, original_name(link)
        apart = abs(link.tail - link.head)
        return link.bandwidth, -link.latency, -min(apart, len(cluster.nodes) - apart), -link.head

    kept = set[tuple[int, int]]()
    for own in _by_machine(cluster):
        best = sorted(own, key=key, reverse=True)[: pruning.min_keep]
        kept.update(_pair(link) for link in best)
    return kept


def _by_machine(cluster: Cluster) -> Sequence[Sequence[Link]]:
    """Return, by node, one directed link for each pair of machines it is part of."""
    around: list[dict[tuple[int, int], Link]] = [{} for _ in cluster.nodes]
    for link in cluster.links:
        if link.tail >= FIRST and link.head >= FIRST:
            for place in (link.tail, link.head):
                around[place - FIRST].setdefault(_pair(link), link)
    return [list(own.values()) for own in around]


def original_name(link: Link) -> str:
    """Return the name of the link's section in the original's cluster file."""
    tail, head = _pair(link)
    return f"Link-{place_name(tail)}-{place_name(head)}"


def _original_order(link: Link) -> tuple[int, str, int]:
    side = 0 if link.tail == SOURCE else 1 if link.head == SINK else 2
    return side, original_name(link), link.tail
