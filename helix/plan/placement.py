"""A placement: which run of layers each machine holds, and the links that serve it."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from common.errors import InputError
from helix.inputs.cluster import FIRST, SINK, SOURCE, Link
from helix.inputs.links import ByEnds, Links

UNUSED = (0, 0)


class Placement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Half-open runs of layers by node index ((0, 0): unused) and the directed links in use.

    The order of the links numbers them; ties in routing go to the smaller number.
    """

    layers: int
    intervals: tuple[tuple[int, int], ...]
    links: tuple[Link, ...]

    def __post_init__(self) -> None:
        """Refuse runs outside the model."""
        for node, (start, end) in enumerate(self.intervals):
            if not (0 <= start < end <= self.layers or (start, end) == UNUSED):
                raise InputError(
                    f"placement: node {node} holds layers {start} to {end} of {self.layers}"
                )

    def held(self, place: int) -> int:
        """Return how many layers the node at this place holds."""
        start, end = self.intervals[place - FIRST]
        return end - start


def fits(tail: tuple[int, int], head: tuple[int, int], partial: bool) -> bool:
    """Say whether work may go from one run of layers straight on to another.

    Exactly where one ends the other begins; with partial inference, anywhere inside it.
    """
    if UNUSED in (tail, head):
        return False
    return head[0] <= tail[1] < head[1] if partial else tail[1] == head[0]


def wired(
    layers: int,
    intervals: Sequence[tuple[int, int]],
    links: Sequence[Link],
    partial: bool = False,
) -> Placement:
    """Return the placement with those of the cluster's links that can carry work.

    As the original: then links into a node without a way on go, then links out of a node without
    a way in; each once, so a chain of dead ends may leave some.
    """
    links = Links.of(links)
    # The coordinator holds nothing; its figures are such that they fit no machine's.
    starts, ends = np.array([(layers + 1, -1)] * FIRST + list(intervals), np.int64).T
    used, tails, heads = ends > starts, links.tails, links.heads
    first, last = (
        (tails == SOURCE) & (starts[heads] == 0),
        (heads == SINK) & (ends[tails] == layers),
    )
    begin, end, passed = starts[heads], ends[heads], ends[tails]
    on = (begin <= passed) & (passed < end) if partial else passed == begin
    machines = used[tails] & used[heads] & ~links.outer
    kept = links.which((first & used[heads]) | last | (machines & on))
    kept = kept.which((kept.heads == SINK) | np.isin(kept.heads, kept.tails))
    kept = kept.which((kept.tails == SOURCE) | np.isin(kept.tails, kept.heads))
    return Placement(layers=layers, intervals=tuple(intervals), links=tuple(kept))


def carries(layers: int, intervals: Sequence[tuple[int, int]], link: Link, partial: bool) -> bool:
    """Say whether a link of the cluster can carry work between these runs of layers."""
    if link.tail == SOURCE:
        start, end = intervals[link.head - FIRST]
        return start == 0 and end > 0
    if link.head == SINK:
        return intervals[link.tail - FIRST][1] == layers
    return fits(intervals[link.tail - FIRST], intervals[link.head - FIRST], partial)


def by_ends(links: Sequence[Link]) -> Mapping[tuple[int, int], Link]:
    """Return the links by their two places."""
    if isinstance(links, Links):
        return ByEnds(links)
    return {(link.tail, link.head): link for link in links}
