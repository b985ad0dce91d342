"""Directed links between places, as arrays: a thousand machines have a million of them.

Places are numbered as in the original: the coordinator's two faces are `SOURCE` and `SINK`, the
node of index i is place `FIRST + i`. Units: bytes per second, seconds.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, overload

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

SOURCE, SINK, FIRST = 0, 1, 2

Ends = tuple[int, int]
Mask = NDArray[np.bool_]


class Link(msgspec.Struct, frozen=True):
    """A directed link between two places; bytes per second, seconds."""

    tail: int
    head: int
    bandwidth: float
    latency: float


class Links(Sequence[Link]):
    """Links in the order that numbers them, one array for each figure."""

    def __init__(
        self, tails: ArrayLike, heads: ArrayLike, bandwidths: ArrayLike, latencies: ArrayLike
    ) -> None:
        """Take the figures of as many links."""
        self.tails, self.heads = np.asarray(tails, np.int64), np.asarray(heads, np.int64)
        self.bandwidths = np.asarray(bandwidths, np.float64)
        self.latencies = np.asarray(latencies, np.float64)

    @classmethod
    def of(cls, links: Sequence[Link]) -> "Links":
        """Return the same links as arrays."""
        if isinstance(links, cls):
            return links
        return cls(
            [link.tail for link in links],
            [link.head for link in links],
            [link.bandwidth for link in links],
            [link.latency for link in links],
        )

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.tails)

    def __iter__(self) -> Iterator[Link]:
        """Yield them in order."""
        return map(Link, *(figure.tolist() for figure in self._figures))

    @overload
    def __getitem__(self, number: int) -> Link: ...
    @overload
    def __getitem__(self, number: slice) -> "Links": ...
    def __getitem__(self, number: int | slice) -> "Link | Links":
        """Return one of them, or some."""
        if isinstance(number, slice):
            return Links(*(figure[number] for figure in self._figures))
        return Link(*(figure[number].item() for figure in self._figures))

    def __eq__(self, other: object) -> bool:
        """Say whether both are the same links in the same order."""
        return isinstance(other, Links) and all(
            np.array_equal(mine, its)
            for mine, its in zip(self._figures, other._figures, strict=True)
        )

    def __hash__(self) -> int:
        """Return a number that equal links share."""
        return hash((self.tails.tobytes(), self.heads.tobytes(), self.bandwidths.tobytes()))

    @property
    def _figures(self) -> tuple[NDArray[Any], ...]:
        return self.tails, self.heads, self.bandwidths, self.latencies

    @property
    def outer(self) -> Mask:
        """Which of them begin or end at the coordinator."""
        return (self.tails == SOURCE) | (self.heads == SINK)

    def which(self, mask: Mask) -> "Links":
        """Return those that the mask marks, in their order."""
        return Links(*(figure[mask] for figure in self._figures))

    def scaled(self, factor: float) -> "Links":
        """Return links that carry so many times as much."""
        return Links(self.tails, self.heads, self.bandwidths * factor, self.latencies)

    def reached(self, start: int, *, backwards: bool = False) -> set[int]:
        """Return the places that links lead to from a place, or from which they lead to it."""
        tails, heads = (self.heads, self.tails) if backwards else (self.tails, self.heads)
        known = np.zeros(max(self.places, start + 1), np.bool_)
        known[start] = True
        before = 0
        while before < known.sum():
            before = int(known.sum())
            known[heads[known[tails]]] = True
        return set(np.flatnonzero(known).tolist())

    @property
    def places(self) -> int:
        """One more than the last place that a link begins or ends at."""
        return int(max(self.tails.max(initial=-1), self.heads.max(initial=-1))) + 1

    @cached_property
    def numbers(self) -> NDArray[np.int32]:
        """Each link's number by [tail, head], -1: there is none."""
        found = np.full((self.places, self.places), -1, np.int32)
        found[self.tails, self.heads] = np.arange(len(self), dtype=np.int32)
        return found


class ByEnds(Mapping[Ends, Link]):
    """Links by their two places, made when they are asked for."""

    def __init__(self, links: Links) -> None:
        """Take the links; no two have the same ends."""
        self._links, self._places = links, links.places

    def _number(self, ends: object) -> int:
        tail, head = ends  # pyright: ignore[reportGeneralTypeIssues]
        inside = 0 <= tail < self._places and 0 <= head < self._places
        return int(self._links.numbers[tail, head]) if inside else -1

    def __getitem__(self, ends: Ends) -> Link:
        """Return the link between two places."""
        number = self._number(ends)
        if number < 0:
            raise KeyError(ends)
        return self._links[number]

    def __contains__(self, ends: object) -> bool:
        """Say whether there is a link between two places."""
        return self._number(ends) >= 0

    def __iter__(self) -> Iterator[Ends]:
        """Yield the two places of each."""
        return zip(self._links.tails.tolist(), self._links.heads.tolist(), strict=True)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._links)
