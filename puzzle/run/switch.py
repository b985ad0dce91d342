"""The switch carried out: resident slices used in place, the rest in buckets between peers."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from puzzle.plan.reshard import BUCKET, Move, ReshardPlan, buckets
from puzzle.plan.slices import Slice
from puzzle.run.groups import Groups
from puzzle.run.links import Directions, Sender, post


class Counted(NamedTuple):
    """What went through the messages of this rank, bytes."""

    received: int
    sent: int
    messages: int


class Started(NamedTuple):
    """A switch under way: what was sent, and what is to come into which buffers."""

    weights: dict[str, Tensor]
    sender: Sender
    waiting: list[tuple[list[Move], Tensor, dist.Work]]
    counted: Counted


class Switcher:
    """Moves weights from one layout to the other, again and again by one plan."""

    def __init__(
        self,
        plan: ReshardPlan,
        groups: Groups,
        directions: Directions,
        slices: dict[str, Slice],
        bucket: int = BUCKET,
    ) -> None:
        me, self.bucket = groups.me, bucket
        self.plan, self.directions, self.slices = plan, directions, slices
        self.kept = [m for m in plan.aliased if m.target == me]
        self.local = [m for m in plan.moves if m.source == m.target == me]
        self.coming: dict[int, list[Move]] = defaultdict(list)
        self.going: dict[int, list[Move]] = defaultdict(list)
        for move in plan.moves:
            if move.target == me != move.source:
                self.coming[move.source].append(move)
            elif move.source == me != move.target:
                self.going[move.target].append(move)

    def enter(self, weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], Counted]:
        """Return the generation shard made of training weights, and what was moved.

        Nothing has to flow back: dropping the result leaves generation.
        """
        return self.finish(self.start(weights))

    def start(self, weights: dict[str, Tensor]) -> Started:
        """Post all messages without waiting for any; the weights must be final."""
        sender, got, messages = Sender(self.directions), 0, 0
        waiting: list[tuple[list[Move], Tensor, dist.Work]] = []
        some = next(iter(weights.values()))
        for source, moves in self.coming.items():
            for part in buckets(moves, some.element_size(), self.bucket):
                size = sum(m.part.size for m in part)
                buffer = torch.empty(size, dtype=some.dtype, device=some.device)
                waiting.append((part, buffer, post(self.directions, source, buffer)))
                got += size * some.element_size()
                messages += 1
        packed: dict[tuple[Slice, ...], Tensor] = {}
        for target, moves in self.going.items():
            for part in buckets(moves, some.element_size(), self.bucket):
                parts = tuple(move.part for move in part)  # several replicas may need the same
                if parts not in packed:
                    packed[parts] = torch.cat([self._cut(weights, m).flatten() for m in part])
                sender.send(target, packed[parts])
        return Started(weights, sender, waiting, Counted(got, sender.bytes, messages))

    def finish(self, started: Started) -> tuple[dict[str, Tensor], Counted]:
        """Wait for the messages and put the generation shard together."""
        weights = started.weights
        made = {m.part.tensor.name: self._cut(weights, m) for m in self.kept}
        for move in self.local:
            _put(made, move, self._cut(weights, move))
        for moves, buffer, work in started.waiting:
            work.wait()
            pieces = buffer.split([m.part.size for m in moves])
            for move, piece in zip(moves, pieces, strict=True):
                _put(made, move, piece.view(move.part.shape))
        started.sender.drain()
        return made, started.counted

    def _cut(self, weights: dict[str, Tensor], move: Move) -> Tensor:
        """Return a part of a resident weight, a view."""
        part, whole = move.part, self.slices[move.part.tensor.name]
        value = weights[part.tensor.name]
        if part.tensor.axis is None:
            return value
        return value.narrow(part.tensor.axis, part.start - whole.start, part.stop - part.start)


def _put(made: dict[str, Tensor], move: Move, piece: Tensor) -> None:
    """Place what came: the tensor itself where it is all of it, else into its part."""
    name, axis, part, whole = move.part.tensor.name, move.part.tensor.axis, move.part, move.whole
    if part == whole or axis is None:
        made[name] = piece
        return
    if name not in made:
        made[name] = piece.new_empty(whole.shape)
    made[name].narrow(axis, part.start - whole.start, part.stop - part.start).copy_(piece)


def gather(
    weights: dict[str, Tensor],
    slices: dict[str, Slice],
    every: list[dict[str, Slice]],
    ranks: list[int],
    part: tuple[int, int],
    group: dist.ProcessGroup | None,
) -> tuple[dict[str, Tensor], int]:
    """Return all whole weights by one all-gather, and the bytes received: the other engines' way.

    `every` has what each of `ranks` holds; ranks that hold the same stand together. `part` (i, n):
    this rank contributes the i-th of n equal pieces of its shard, because n replicas hold the same
    (ZeRO-3 cuts over all devices).
    """
    flat = torch.cat([weights[name].flatten() for name in slices])
    number, parts = part
    size = max(-(-sum(s.size for s in held.values()) // parts) for held in every)
    mine = flat.new_zeros(size)
    piece = flat[number * size : (number + 1) * size]
    mine[: len(piece)] = piece
    by_rank = [torch.empty_like(mine) for _ in ranks]
    if group is not None:
        dist.all_gather(by_rank, mine, group=group)
    else:
        by_rank = [mine]
    found = [by_rank[sorted(ranks).index(rank)] for rank in ranks]
    got = (len(ranks) - 1) * size * flat.element_size()
    whole: dict[str, Tensor] = {}
    for first in range(0, len(ranks), parts):
        shard = torch.cat(found[first : first + parts])
        held, offset = every[first], 0
        for own in held.values():
            value = shard[offset : offset + own.size].view(own.shape)
            offset += own.size
            _put(whole, Move(0, 0, own, _all(own)), value)
    return whole, got


def _all(part: Slice) -> Slice:
    """Return the whole of a slice's tensor."""
    axis = part.tensor.axis
    return part if axis is None else Slice(part.tensor, 0, part.tensor.shape[axis])
