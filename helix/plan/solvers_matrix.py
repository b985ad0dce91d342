"""A mixed-integer linear problem as plain arrays, the same for every solver."""

import math
from collections import Counter
from collections.abc import Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

REAL, INTEGER, BINARY = 0, 1, 2  # kinds of columns


class Matrices(msgspec.Struct, frozen=True, kw_only=True):
    """Maximise costs @ x with lower <= x <= upper and row_lower <= A @ x <= row_upper.

    A is in compressed rows: row r has `values[starts[r]:starts[r + 1]]` in the columns
    `columns[starts[r]:starts[r + 1]]`. Every row is an equation or open on one side.
    """

    names: tuple[str, ...]  # of the columns
    kinds: Ints
    costs: Floats
    lower: Floats
    upper: Floats
    row_lower: Floats
    row_upper: Floats
    starts: Ints
    columns: Ints
    values: Floats

    @property
    def variables(self) -> int:
        """Number of columns."""
        return len(self.names)

    @property
    def constraints(self) -> int:
        """Number of rows."""
        return len(self.row_lower)

    @property
    def nonzeros(self) -> int:
        """Number of entries of A."""
        return len(self.values)

    def count(self, kind: int) -> int:
        """Return how many columns are of this kind."""
        return int((self.kinds == kind).sum())

    def violation(self, x: Floats) -> float:
        """Return by how much `x` breaks the worst row, bound or integrality."""
        sums = np.zeros(self.constraints)
        rows = np.repeat(np.arange(self.constraints), np.diff(self.starts))
        np.add.at(sums, rows, self.values * x[self.columns])
        whole = self.kinds != REAL
        parts = (
            self.row_lower - sums,
            sums - self.row_upper,
            self.lower - x,
            x - self.upper,
            np.abs(x - np.round(x))[whole],
        )
        return max(0.0, *(float(part.max()) for part in parts if len(part)))


class Builder:
    """Collects columns and rows in the order in which they are added."""

    def __init__(self) -> None:
        self._columns: list[tuple[str, int, float, float, float]] = []
        self._limits: list[tuple[float, float]] = []
        self._starts: list[int] = [0]
        self._entries: list[tuple[int, float]] = []

    def column(
        self,
        name: str,
        kind: int = REAL,
        *,
        cost: float = 0.0,
        lower: float = 0.0,
        upper: float = math.inf,
    ) -> int:
        """Add a column and return its number; a binary one ends at 1."""
        self._columns.append((name, kind, cost, lower, 1.0 if kind == BINARY else upper))
        return len(self._columns) - 1

    def row(
        self,
        terms: Iterable[tuple[int, float]],
        *,
        lower: float = -math.inf,
        upper: float = math.inf,
    ) -> None:
        """Add a row from (column, coefficient) pairs, each column once."""
        self._entries += terms
        self._starts.append(len(self._entries))
        self._limits.append((lower, upper))

    def matrices(self) -> Matrices:
        """Return what was added."""
        names, kinds, costs, lower, upper = zip(*self._columns, strict=True)
        assert max(Counter(names).values()) == 1
        row_lower, row_upper = zip(*self._limits, strict=True)
        columns, values = zip(*self._entries, strict=True)
        return Matrices(
            names=names,
            kinds=np.array(kinds, np.int64),
            costs=np.array(costs, np.float64),
            lower=np.array(lower, np.float64),
            upper=np.array(upper, np.float64),
            row_lower=np.array(row_lower, np.float64),
            row_upper=np.array(row_upper, np.float64),
            starts=np.array(self._starts, np.int64),
            columns=np.array(columns, np.int64),
            values=np.array(values, np.float64),
        )
