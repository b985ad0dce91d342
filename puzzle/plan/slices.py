"""Which part of which weight a place holds: intervals along the one axis that is cut."""

from functools import cache
from typing import NamedTuple

from puzzle.inputs.layout import Layout
from puzzle.inputs.model import Llama, Role, Tensor, stage_of, tensors


class Slice(NamedTuple):
    """The rows (or columns) [start, stop) of a tensor's cut axis; all of it where none is cut."""

    tensor: Tensor
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Elements."""
        if self.tensor.axis is None:
            return self.tensor.size
        return self.tensor.size // self.tensor.shape[self.tensor.axis] * (self.stop - self.start)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the part."""
        lengths = list(self.tensor.shape)
        if self.tensor.axis is not None:
            lengths[self.tensor.axis] = self.stop - self.start
        return tuple(lengths)

    def overlap(self, other: "Slice") -> "Slice | None":
        """Return what both slices of one tensor hold, None if nothing."""
        if self.tensor.axis is None:
            return self
        start, stop = max(self.start, other.start), min(self.stop, other.stop)
        return Slice(self.tensor, start, stop) if start < stop else None


def interval(tensor: Tensor, part: int, parts: int) -> Slice:
    """Return the part-th of equal slices of a tensor; the whole where it is not cut."""
    if tensor.axis is None:
        return Slice(tensor, 0, 0)
    step = tensor.shape[tensor.axis] // parts
    return Slice(tensor, part * step, (part + 1) * step)


@cache
def stage_tensors(model: Llama, role: Role, stages: int) -> tuple[tuple[Tensor, ...], ...]:
    """Return the tensors of every stage."""
    held: list[list[Tensor]] = [[] for _ in range(stages)]
    for tensor in tensors(model, role):
        held[stage_of(tensor, model, stages)].append(tensor)
    return tuple(map(tuple, held))


@cache
def held(model: Llama, role: Role, layout: Layout, stage: int, part: int) -> tuple[Slice, ...]:
    """Return what a place holds, the same in every replica."""
    here = stage_tensors(model, role, layout.pipeline)[stage]
    return tuple(interval(tensor, part, layout.tensor) for tensor in here)


def held_elements(model: Llama, role: Role, layout: Layout, stage: int, part: int) -> int:
    """Return the number of weights that a place holds."""
    return sum(part.size for part in held(model, role, layout, stage, part))
