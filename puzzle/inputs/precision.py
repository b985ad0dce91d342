"""Bytes of numbers by the precision of a run, the same for planner and runtime."""

from typing import Literal, NamedTuple

DtypeName = Literal["float32", "bfloat16", "float16", "float64"]


class Kinds(NamedTuple):
    """Bytes of a number by where it is."""

    weight: int
    """In the passes."""
    main: int
    """As the optimizer holds it; gradients are summed in it."""

    @property
    def trained(self) -> int:
        """Of a trained weight between two updates: weight, main weight, two moments."""
        return self.weight + self.optimizer

    @property
    def optimizer(self) -> int:
        """Of them, what can be sharded: main weight, where it is not the weight, and moments."""
        own = self.main if self.main != self.weight else 0
        return own + 2 * self.main

    @property
    def wide(self) -> int:
        """Of sums and logarithms: float32 at least."""
        return max(4, self.weight)


HALVES = Kinds(2, 4)


def kinds_of(dtype: DtypeName) -> Kinds:
    """Return the bytes of a run's numbers; the halves keep float32 main weights."""
    return {"float32": Kinds(4, 4), "float64": Kinds(8, 8)}.get(dtype, HALVES)
