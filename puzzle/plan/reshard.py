"""A layout switch as a value: what every rank keeps, copies, sends and receives.

Paper's inter-stage switch; the bytes of section 6 of the specification follow from it.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from common.errors import InputError
from puzzle.inputs.layout import Layout, Place
from puzzle.inputs.model import Llama, Role, check_layout
from puzzle.plan.mappings import MAPPINGS, source_replica
from puzzle.plan.slices import Slice, held, held_elements

BUCKET = 512 * 1024 * 1024
"""Usual largest message of a switch, bytes."""
MOST_MESSAGES = 4
"""From one rank to another in a switch."""


class Move(NamedTuple):
    """A part of a tensor that a rank needs, and which rank it comes from."""

    source: int
    target: int
    part: Slice
    whole: Slice
    """What the target holds of this tensor after the switch."""


class ReshardPlan(NamedTuple):
    """All moves of a switch. `places[r]` is the generation place that rank r takes."""

    train: Layout
    generate: Layout
    mapping: str
    places: tuple[Place, ...]
    moves: tuple[Move, ...]
    aliased: tuple[Move, ...]
    """Whole new slices that lie inside what the rank holds: used where they are, no copy."""

    def received(self, rank: int) -> int:
        """Return the elements that come to a rank from others."""
        return sum(m.part.size for m in self.moves if m.target == rank != m.source)

    def sent(self, rank: int) -> int:
        """Return the elements that a rank sends to others."""
        return sum(m.part.size for m in self.moves if m.source == rank != m.target)

    def copied(self, rank: int) -> int:
        """Return the elements that a rank copies within its own memory."""
        return sum(m.part.size for m in self.moves if m.source == m.target == rank)

    def kept(self, rank: int) -> int:
        """Return the elements that a rank uses where they are."""
        return sum(m.part.size for m in self.aliased if m.target == rank)

    def peers(self, rank: int) -> tuple[int, ...]:
        """Return the ranks that a rank receives from."""
        return tuple(
            sorted({m.source for m in self.moves if m.target == rank and m.source != rank})
        )

    def sources(self, rank: int) -> tuple[int, ...]:
        """Return the ranks whose weights a rank gets, itself too, in the order of the layers."""
        first: dict[int, int] = {}
        for move in (*self.aliased, *self.moves):
            if move.target == rank:
                layer = min(first.get(move.source, move.part.tensor.layer), move.part.tensor.layer)
                first[move.source] = layer
        return tuple(sorted(first, key=lambda source: (first[source], source)))


def make_reshard_plan(
    train: Layout, generate: Layout, model: Llama, mapping: str = "overlap", role: Role = "actor"
) -> ReshardPlan:
    """Return the switch of a model's weights from one layout to another.

    Raises InputError where the worlds differ or a layout cannot hold the model.
    """
    if train.world != generate.world:
        raise InputError(
            f"layouts {train} and {generate} have {train.world} and {generate.world} ranks; a"
            " switch needs the same ranks"
        )
    if mapping not in MAPPINGS:
        raise InputError(f"mapping is {mapping!r}, expected one of {', '.join(MAPPINGS)}")
    check_layout(model, train, "training layout")
    check_layout(model, generate, "generation layout")
    assignment = MAPPINGS[mapping](train, generate, model)
    places = tuple(map(generate.place, assignment))
    where = _Holders(train, model, role, own=mapping != "original")
    needs: list[list[_Need]] = []
    for rank, place in enumerate(places):
        like = place.slice * train.tensor // generate.tensor
        wanted = held(model, role, generate, place.stage, place.slice)
        needs += [where.find(rank, like, whole) for whole in wanted]
    flat = [need for group in needs for need in group]
    if mapping == "overlap":
        sources = _shared_out(train, flat)
    else:
        replicas = [source_replica(train, generate, place.replica) for place in places]
        sources = {n.held_by: train.rank(n.at(replicas[n.target])) for n in flat}
    moves: list[Move] = []
    aliased: list[Move] = []
    for group in needs:
        found = [Move(sources[n.held_by], n.target, n.part, n.whole) for n in group]
        inside = len(found) == 1 and found[0].source == found[0].target
        (aliased if inside else moves).extend(found)
    return ReshardPlan(train, generate, mapping, places, tuple(moves), tuple(aliased))


class _Need(NamedTuple):
    """A part that a rank must have, and the training stage and slice that hold it."""

    target: int
    stage: int
    slice: int
    part: Slice
    whole: Slice

    @property
    def held_by(self) -> tuple[int, int, int]:
        """What is answered by one source: everything from one stage and slice for one rank."""
        return self.target, self.stage, self.slice

    def at(self, replica: int) -> Place:
        """Return who holds it in a replica."""
        return Place(self.stage, replica, self.slice)


def _shared_out(train: Layout, needs: Sequence[_Need]) -> dict[tuple[int, int, int], int]:
    """Return who sends what: a rank itself, or the replica that has the least to send so far.

    Every replica has the same, so that no rank need send much more than the others; the largest
    are shared out first, and of equals the nearest rank sends.
    """
    sizes: dict[tuple[int, int, int], int] = defaultdict(int)
    for need in needs:
        sizes[need.held_by] += need.part.size
    sources: dict[tuple[int, int, int], int] = {}
    load = [0] * train.world
    for key, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        target, stage, part = key
        own = train.place(target)
        if (own.stage, own.slice) == (stage, part):
            sources[key] = target
            continue
        ranks = [train.rank(Place(stage, replica, part)) for replica in range(train.data)]
        source = min(ranks, key=lambda rank: (load[rank], abs(rank - target), rank))
        sources[key] = source
        load[source] += size
    return sources


class _Holders:
    """Who holds what in the training layout; `own` prefers the rank's own weights."""

    def __init__(self, train: Layout, model: Llama, role: Role, *, own: bool) -> None:
        self.train, self.own = train, own
        self.parts: dict[str, list[tuple[int, int, Slice]]] = defaultdict(list)
        for stage in range(train.pipeline):
            for part in range(train.tensor):
                for piece in held(model, role, train, stage, part):
                    self.parts[piece.tensor.name].append((stage, part, piece))

    def find(self, rank: int, like: int, whole: Slice) -> list[_Need]:
        """Return the parts of a slice that a rank needs, by who holds them."""
        found: list[_Need] = []
        holders = self.parts[whole.tensor.name]
        if whole.tensor.axis is None:  # every slice of the stage has all of it
            holders = [self._nearest(rank, like, whole)]
        for stage, part, piece in holders:
            both = piece.overlap(whole)
            if both is not None:
                found.append(_Need(rank, stage, part, both, whole))
        return found

    def _nearest(self, rank: int, like: int, whole: Slice) -> tuple[int, int, Slice]:
        """Choose who sends a norm: the rank itself, or the slice that most of the rest is from."""
        holders = self.parts[whole.tensor.name]
        own = self.train.place(rank)
        if self.own and holders[0][0] == own.stage:
            return holders[own.slice]
        return holders[like]


def buckets(moves: Sequence[Move], width: int, least: int = BUCKET) -> list[list[Move]]:
    """Return the moves of one pair of ranks as at most four messages; `width` bytes an element.

    A message has at most `least` bytes, or more where four of them would not hold all: closed
    ones then have above a quarter of the whole, so there are three of them and a last one.
    """
    sizes = [move.part.size * width for move in moves]
    if sum(sizes) > least:
        least = max(least, -(-sum(sizes) // MOST_MESSAGES) + max(sizes))
    made: list[list[Move]] = [[]]
    size = 0
    for move, more in zip(moves, sizes, strict=True):
        if made[-1] and size + more > least:
            made.append([])
            size = 0
        made[-1].append(move)
        size += more
    return [bucket for bucket in made if bucket]


def peak_elements(plan: ReshardPlan, model: Llama, rank: int, role: Role = "actor") -> int:
    """Return the weights in a rank's memory during generation: old shard and what is new."""
    place, old = plan.places[rank], plan.train.place(rank)
    before = held_elements(model, role, plan.train, old.stage, old.slice)
    after = held_elements(model, role, plan.generate, place.stage, place.slice)
    return before + after - plan.kept(rank)
