"""Where every rank of a plan stands, and which samples travel between which ranks.

Rank order inside a stage: replica by replica, and within a replica slice by slice of the tensors.
"""

from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

from metis.plan.plans import Plan, Stage


class Position(NamedTuple):
    """A rank's place: its stage, its replica of the stage, its slice of the replica's tensors."""

    rank: int
    stage: int
    replica: int
    slice: int


class Message(NamedTuple):
    """Samples `begin..end-1` of a micro-batch, part `part` of `parts` of the hidden dimension."""

    source: int
    target: int
    begin: int
    end: int
    part: int
    parts: int


def position(plan: Plan, rank: int) -> Position:
    """Return the place of a rank."""
    for number, stage in enumerate(plan.stages):
        if stage.first_rank <= rank < stage.first_rank + stage.devices:
            replica, part = divmod(rank - stage.first_rank, stage.tp)
            return Position(rank, number, replica, part)
    raise AssertionError(f"rank {rank} is in no stage")


def sample_range(stage: Stage, replica: int) -> range:
    """Return the samples of a micro-batch that a replica processes."""
    ends = list(accumulate(stage.samples))
    return range(ends[replica] - stage.samples[replica], ends[replica])


def tensor_ranks(stage: Stage, replica: int) -> list[int]:
    """Return the ranks that share the tensors of one replica."""
    first = stage.first_rank + replica * stage.tp
    return list(range(first, first + stage.tp))


def data_ranks(stage: Stage, part: int) -> list[int]:
    """Return the ranks that hold the same slice in every replica."""
    return [stage.first_rank + replica * stage.tp + part for replica in range(stage.dp)]


def messages(source: Stage, target: Stage) -> Iterator[Message]:
    """Yield what must travel for one micro-batch to get from one stage to another.

    Replicas are matched by the samples they share. Each of the target's slices receives its part
    of the hidden dimension only, from a different slice of the source where there is one, so every
    value crosses the boundary once; the target's ranks then gather the parts among themselves.
    """
    for sender in range(source.dp):
        for receiver in range(target.dp):
            have, need = sample_range(source, sender), sample_range(target, receiver)
            begin, end = max(have.start, need.start), min(have.stop, need.stop)
            for part, rank in enumerate(tensor_ranks(target, receiver) if begin < end else ()):
                holder = tensor_ranks(source, sender)[part % source.tp]
                yield Message(holder, rank, begin, end, part, target.tp)
