"""How ranks share a model: pipeline x data x tensor parallel, and which rank sits where.

Order as in Megatron-LM: tensor fastest, then data, then pipeline, so rank = (p D + d) T + t.
"""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from common.errors import InputError


class Place(NamedTuple):
    """A rank's coordinates: pipeline stage, replica, tensor slice."""

    stage: int
    replica: int
    slice: int


class Layout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, order=True):
    """Pipeline, tensor and data parallel degrees."""

    pipeline: int = 1
    """Stages, each of whole layers; at most as many as layers."""
    tensor: int = 1
    """Slices of every matrix; divides heads, kv_heads, ffn and vocabulary."""
    data: int = 1
    """Replicas that share the batch; divides work.batch."""

    def __post_init__(self) -> None:
        """Refuse degrees below 1."""
        for field in ("pipeline", "tensor", "data"):
            if getattr(self, field) < 1:
                raise InputError(f"layout.{field} is {getattr(self, field)}, expected 1 or more")

    def __str__(self) -> str:
        return f"p{self.pipeline}t{self.tensor}d{self.data}"

    @property
    def world(self) -> int:
        """Ranks in all."""
        return self.pipeline * self.tensor * self.data

    def rank(self, place: Place) -> int:
        """Return the rank at a place."""
        return (place.stage * self.data + place.replica) * self.tensor + place.slice

    def place(self, rank: int) -> Place:
        """Return a rank's place: the inverse of `rank`."""
        rest, part = divmod(rank, self.tensor)
        stage, replica = divmod(rest, self.data)
        return Place(stage, replica, part)

    def places(self) -> list[Place]:
        """Return every rank's place, by rank."""
        return [self.place(rank) for rank in range(self.world)]

    def tensor_groups(self) -> list[tuple[int, ...]]:
        """Return the ranks that share a stage of a replica."""
        return self._groups(lambda place: (place.stage, place.replica))

    def data_groups(self) -> list[tuple[int, ...]]:
        """Return the ranks that hold the same slice of the same stage."""
        return self._groups(lambda place: (place.stage, place.slice))

    def pipeline_groups(self) -> list[tuple[int, ...]]:
        """Return the ranks that a micro-batch passes through, first stage first."""
        return self._groups(lambda place: (place.replica, place.slice))

    def model_groups(self) -> list[tuple[int, ...]]:
        """Return the ranks that hold one replica together."""
        return self._groups(lambda place: (place.replica,))

    def _groups(self, key: Callable[[Place], tuple[int, ...]]) -> list[tuple[int, ...]]:
        found: dict[tuple[int, ...], list[int]] = {}
        for rank in range(self.world):
            found.setdefault(key(self.place(rank)), []).append(rank)
        return [tuple(ranks) for _, ranks in sorted(found.items())]


def layers_per_stage(layers: int, stages: int) -> tuple[int, ...]:
    """Return how many layers each stage holds: the first `layers mod stages` hold one more.

    Raises InputError where a stage would hold none.
    """
    if layers < stages:
        raise InputError(f"{stages} pipeline stages for {layers} layers: use fewer stages")
    return tuple(layers // stages + (stage < layers % stages) for stage in range(stages))


def stage_layers(layers: int, stages: int, stage: int) -> range:
    """Return the numbers of the layers that a stage holds."""
    counts = layers_per_stage(layers, stages)
    first = sum(counts[:stage])
    return range(first, first + counts[stage])
