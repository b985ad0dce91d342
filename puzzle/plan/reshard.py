"""A layout switch as a value: what every rank keeps, copies, sends and receives.

Paper's inter-stage switch; the bytes of section 6 of the specification follow from it.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from puzzle.inputs.layout import Layout, Place
from puzzle.inputs.model import Llama, Role
from puzzle.plan.slices import Slice, held
from puzzle.plan.sources import exchange

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
    train: Layout,
    generate: Layout,
    model: Llama,
    mapping: str = "overlap",
    role: Role = "actor",
    node: int = 0,
) -> ReshardPlan:
    """Return the switch of a model's weights from one layout to another, tensor by tensor.

    `node` devices are on a node; 0: all are on one. Raises InputError where the worlds differ or a
    layout cannot hold the model.
    """
    made = exchange(train, generate, model, mapping, role, node)
    by_key = {unit.key: source for unit, source in zip(made.units, made.sources, strict=True)}
    where = _Holders(train, model, role, own=made.norms_of_own)
    moves: list[Move] = []
    aliased: list[Move] = []
    for rank, place in enumerate(made.places):
        like = place.slice * train.tensor // generate.tensor
        for whole in held(model, role, generate, place.stage, place.slice):
            needs = where.find(rank, like, whole)
            found = [Move(by_key[need.held_by], rank, need.part, whole) for need in needs]
            inside = len(found) == 1 and found[0].source == found[0].target
            (aliased if inside else moves).extend(found)
    return ReshardPlan(train, generate, mapping, made.places, tuple(moves), tuple(aliased))


class _Need(NamedTuple):
    """A part that a rank must have, and the training stage and slice that hold it."""

    target: int
    stage: int
    slice: int
    part: Slice

    @property
    def held_by(self) -> tuple[int, int, int]:
        """What is answered by one source: everything from one stage and slice for one rank."""
        return self.target, self.stage, self.slice


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
                found.append(_Need(rank, stage, part, both))
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
    ends = bucket_ends([move.part.size * width for move in moves], least)
    return [list(moves[a:b]) for a, b in pairwise([0, *ends])]


def bucket_ends(sizes: Sequence[int], least: int = BUCKET) -> list[int]:
    """Return after how many of some parts each message ends, by the parts' bytes in order."""
    if not sizes:
        return []
    if sum(sizes) > least:
        least = max(least, -(-sum(sizes) // MOST_MESSAGES) + max(sizes))
    ends, size = list[int](), 0
    for number, more in enumerate(sizes):
        if size and size + more > least:
            ends.append(number)
            size = 0
        size += more
    return [*ends, len(sizes)]
