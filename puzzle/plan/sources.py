"""Who sends what in a switch: by rank and holder, without the single tensors.

Everything that one rank needs from one training stage and slice comes from one source.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from common.errors import InputError
from puzzle.inputs.layout import Layout, Place
from puzzle.inputs.model import Llama, Role, check_layout
from puzzle.plan.mappings import MAPPINGS, source_replica
from puzzle.plan.shares import Shares, shares


class Unit(NamedTuple):
    """What a rank needs of what a training stage and slice hold, elements."""

    target: int
    stage: int
    slice: int
    cut: int
    """Of tensors that are cut."""
    norms: int
    """Of tensors that every slice has whole."""

    @property
    def key(self) -> tuple[int, int, int]:
        """Target, stage and slice."""
        return self.target, self.stage, self.slice

    @property
    def size(self) -> int:
        """Elements in all."""
        return self.cut + self.norms


class Exchange(NamedTuple):
    """A switch by who needs what from whom. `places[r]` is the generation place of rank r."""

    places: tuple[Place, ...]
    units: tuple[Unit, ...]
    sources: tuple[int, ...]
    """Of each unit, the rank that it comes from."""
    norms_of_own: bool
    """Norms come from the rank itself where it holds them."""


def check_pair(train: Layout, generate: Layout, model: Llama, mapping: str) -> None:
    """Raise InputError unless a switch between the layouts is defined."""
    if train.world != generate.world:
        raise InputError(
            f"layouts {train} and {generate} have {train.world} and {generate.world} ranks; a"
            " switch needs the same ranks"
        )
    if mapping not in MAPPINGS:
        raise InputError(f"mapping is {mapping!r}, expected one of {', '.join(MAPPINGS)}")
    check_layout(model, train, "training layout")
    check_layout(model, generate, "generation layout")


@lru_cache(maxsize=64)
def exchange(
    train: Layout, generate: Layout, model: Llama, mapping: str, role: Role = "actor", node: int = 0
) -> Exchange:
    """Return who needs what from whom; `node` devices are on a node, 0: all are on one.

    Raises InputError where the worlds differ or a layout cannot hold the model.
    """
    check_pair(train, generate, model, mapping)
    assignment = MAPPINGS[mapping](train, generate, model, node)
    places = tuple(map(generate.place, assignment))
    own = mapping != "original"
    found = shares(model, role, train, generate)
    needed = [
        unit for rank in range(train.world) for unit in _units(train, rank, places, found, own)
    ]
    if mapping == "overlap":
        sources = _shared_out(train, needed, node or train.world)
    else:
        replicas = [source_replica(train, generate, place.replica) for place in places]
        sources = [train.rank(Place(u.stage, replicas[u.target], u.slice)) for u in needed]
    return Exchange(places, tuple(needed), tuple(sources), own)


def _units(
    train: Layout, rank: int, places: tuple[Place, ...], found: Shares, own: bool
) -> Iterator[Unit]:
    """Yield what a rank needs, stage by stage."""
    me, place = train.place(rank), places[rank]
    like = place.slice * train.tensor // len(found.pieces[0])
    parts = [(t, int(n)) for t, n in enumerate(found.pieces[:, place.slice])]
    for stage in range(train.pipeline):
        cut, norms = int(found.cut[stage, place.stage]), int(found.norms[stage, place.stage])
        if not cut and not norms:
            continue
        giver = me.slice if own and stage == me.stage else like
        for part, pieces in parts:
            unit = Unit(rank, stage, part, cut * pieces, norms * (part == giver))
            if unit.size:
                yield unit


def _shared_out(train: Layout, units: list[Unit], node: int) -> list[int]:
    """Return who sends what: a rank itself, or of the replicas the one with the least to send.

    Of the own node where one is there. Every replica has the same, so that no rank need send much
    more than the others; the largest are shared out first, and of equals the nearest rank sends.
    """
    load = [0] * train.world
    sources = [0] * len(units)
    step = train.tensor
    for number in sorted(range(len(units)), key=lambda n: (-units[n].size, units[n].key)):
        unit = units[number]
        target, stage, part = unit.key
        first = stage * train.data * step + part
        ranks = range(first, first + train.data * step, step)
        if target in ranks:
            sources[number] = target
            continue
        here = target // node * node
        near = [rank for rank in ranks if here <= rank < here + node]
        source = min(near or ranks, key=lambda rank: (load[rank], abs(rank - target), rank))
        sources[number] = source
        load[source] += unit.size
    return sources
