"""What the end of a pass brings, and on which links: worked out once per rank, kind and chunk."""

from collections.abc import Hashable, Mapping
from typing import NamedTuple

from vocab_parallel.plan.dependencies import EVERY, Link, Need
from vocab_parallel.plan.messages import outgoing
from vocab_parallel.plan.passes import Pass, Schedule
from vocab_parallel.plan.wants import Wants

Delays = Mapping[Link | tuple[int, int], float]
"""Seconds that a link is taken by one message or collective; a pair (source, target) of ranks has
its own where it differs from `p2p`."""


class Way(NamedTuple):
    """A link that carries a result: what it is on, how long it is taken, the need that it meets."""

    channel: Hashable
    seconds: float
    number: int | None


class Gives(NamedTuple):
    """What a pass's end brings: on its own rank, as a message, and by collectives.

    `by_all`: these begin when all ranks have had the pass.
    """

    local: int | None
    message: Way | None
    by_all: bool
    collectives: tuple[Way, ...]


def gives(schedule: Schedule, wants: Wants, delays: Delays, rank: int, item: Pass) -> Gives:
    """Return what the end of a pass of micro-batch 0 brings; that of others brings the same."""
    goes = outgoing(schedule, rank, item)
    message = None
    if goes is not None:
        pair = rank, goes[0]
        seconds = delays.get(pair, delays.get("p2p", 0.0))
        message = Way(pair, seconds, wants.number(Need(rank, item, "p2p")))
    by_all = item.kind in ("IF", "S", "T")
    source = EVERY if by_all else rank
    return Gives(
        local=wants.number(Need(rank, item, "local")),
        message=message,
        by_all=by_all,
        collectives=tuple(
            Way(
                "statistics" if link == "statistics" else "collectives",
                delays.get(link, 0.0),
                wants.number(Need(source, item, link)),
            )
            for link in _collectives(schedule, rank, item)
        ),
    )


def _collectives(schedule: Schedule, rank: int, item: Pass) -> tuple[Link, ...]:
    """Return the collectives that follow a pass, in order; of IF, S and T once all ranks had it."""
    if not schedule.barriers:
        return ()
    match item.kind:
        case "IF":
            return ("inputs",)
        case "S":
            last = item.chunk == schedule.output_parts - 1
            return (
                ("statistics", "gradient") if last and schedule.barriers == 1 else ("statistics",)
            )
        case "T" if schedule.barriers > 1:
            return ("gradient",)
        case "F" if schedule.stage(rank, item.chunk) == schedule.stages - 1:
            return ("hidden",)
        case "B" if schedule.stage(rank, item.chunk) == 0:
            return ("input gradient",)
        case _:
            return ()
