"""Can anything move? And if not, who waits for whom: rules on published queues alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class Waiting(NamedTuple):
    """An operation not yet over: its words, the way it goes, its number on it, and who is in it.

    It is `ready` where all is over after which it begins.
    """

    words: str
    route: str
    number: int
    ranks: tuple[int, ...]
    ready: bool = True


class Published(NamedTuple):
    """One rank, whose host waits: for an entry of a queue, or to connect to others."""

    queues: dict[str, list[list[Waiting]]]
    finished: dict[tuple[str, str], int]
    """How many operations of each communicator and route are over."""
    connected: frozenset[str]
    connecting: tuple[tuple[str, tuple[int, ...]], ...]
    """Routes and with whom, while the host is held by them."""
    awaited: tuple[str, int] | None
    """Communicator and place in its queue."""

    @classmethod
    def of(cls, value: dict[str, Any]) -> Published:
        """Return a state from plain lists."""
        queues = {
            name: [
                [
                    Waiting(words, route, number, tuple(ranks), ready)
                    for words, route, number, ranks, ready in one
                ]
                for one in entries
            ]
            for name, entries in value["queues"].items()
        }
        finished = {(name, route): count for name, route, count in value["finished"]}
        return cls(
            queues,
            finished,
            frozenset(value["connected"]),
            tuple((name, tuple(ranks)) for name, ranks in value["connecting"]),
            tuple(value["awaited"]) if value["awaited"] else None,
        )


def is_stalled(states: Sequence[Published]) -> bool:
    """Say whether no rank's host and no head of a queue can move."""
    return not any(_moves(states, rank) for rank in range(len(states)))


def _moves(states: Sequence[Published], rank: int) -> bool:
    own = states[rank]
    if own.connecting and _missing(states, own) is None:
        return True
    heads = [(name, part) for name, entries in own.queues.items() for part in _first(entries)]
    return any(
        part.ready and all(_meets(states[other], name, part) for other in part.ranks)
        for name, part in heads
    )


def _first(entries: list[list[Waiting]]) -> list[Waiting]:
    return entries[0] if entries else []


def _missing(states: Sequence[Published], own: Published) -> tuple[str, int] | None:
    """Return a route that a rank connects and a rank that has not come to it."""
    for route, ranks in own.connecting:
        for other in ranks:
            names = {name for name, _ in states[other].connecting} | states[other].connected
            if route not in names:
                return route, other
    return None


def _meets(other: Published, name: str, part: Waiting) -> bool:
    """Say whether another rank does its side of an operation now, or has done it."""
    if other.finished.get((name, part.route), 0) > part.number:
        return True
    return any(one.ready and _same(one, part) for one in _first(other.queues.get(name, [])))


def _same(one: Waiting, other: Waiting) -> bool:
    return (one.route, one.number) == (other.route, other.number)


def describe(states: Sequence[Published]) -> str:
    """Return who waits for whom, as far as it goes round, then the heads of all ranks' queues."""
    chains = [_chain(states, rank) for rank in range(len(states))]
    cycle = "; ".join(min(chains, key=len))
    heads = []
    for rank, state in enumerate(states):
        fronts = [
            " + ".join(part.words for part in entries[0])
            + (f" (before {len(entries) - 1} more)" if len(entries) > 1 else "")
            for entries in state.queues.values()
            if entries
        ]
        heads.append(f"rank {rank}: {', '.join(fronts) or 'nothing'}")
    return f"stalled: {cycle}. Heads of the queues: {'; '.join(heads)}"


def _chain(states: Sequence[Published], rank: int) -> list[str]:
    """Return the ring of entries that wait for each other to which a rank's host leads."""
    found: list[str] = []
    place = states[rank].awaited
    while True:
        text, following = _link(states, rank, place)
        if text in found:
            return found[found.index(text) :]
        found.append(text)
        if following is None:
            return found
        rank, place = following


def _link(
    states: Sequence[Published], rank: int, place: tuple[str, int] | None
) -> tuple[str, tuple[int, tuple[str, int] | None] | None]:
    """Return a rank's entry in words, and the entry of the rank that keeps its queue waiting."""
    own = states[rank]
    if place is None:
        missing = _missing(states, own)
        names = ", ".join(name for name, _ in own.connecting)
        text = f"rank {rank}: connects {names}, which holds its host"
        return text, None if missing is None else (missing[1], states[missing[1]].awaited)
    name, number = place
    entries = own.queues[name]
    text = f"rank {rank}: {' + '.join(part.words for part in entries[number])}"
    if number:
        text += f", behind {' + '.join(part.words for part in entries[0])}"
    for part in entries[0]:
        for other in part.ranks:
            if not _meets(states[other], name, part):
                return text, (other, _place(states[other], name, part))
    return text, None


def _place(other: Published, name: str, part: Waiting) -> tuple[str, int] | None:
    """Return where another rank's side stands, or what its host waits for before it posts it."""
    for number, entry in enumerate(other.queues.get(name, [])):
        if any(_same(one, part) for one in entry):
            return name, number
    return other.awaited
