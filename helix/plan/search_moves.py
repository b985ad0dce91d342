"""Moves from one placement to a neighbouring one, compiled.

A move writes runs of layers into `starts` and `ends` and says whether they are all possible. A
machine that is not used has `OUT` in both, which no move makes of another run but copying.
"""

import numpy as np

from common.kernels import compiled
from helix.plan.search_problem import Ints

MOVES = 7
OUT = -1


@compiled
def move(starts: Ints, ends: Ints, most: Ints, layers: int, rng: np.random.Generator) -> bool:
    """Change the placement a little at random; say whether what comes out is a placement."""
    kind = _draw(rng, 0, MOVES)
    i, j = _draw(rng, 0, len(starts)), _draw(rng, 0, len(starts))
    if kind == 0:
        _snap(starts, ends, most, layers, i, rng)
    elif kind == 1:
        starts[i], ends[i] = starts[j], ends[j]
    elif kind == 2:
        starts[i], starts[j] = starts[j], starts[i]
        ends[i], ends[j] = ends[j], ends[i]
    elif kind == 3:
        far = _draw(rng, 1, 4)
        _shift(starts, ends, ends[i], ends[i], far if _coin(rng) else -far, layers)
    elif kind == 4:
        low, high = min(ends[i], ends[j]), max(ends[i], ends[j])
        _shift(starts, ends, low, high, 1 if _coin(rng) else -1, layers)
    elif kind == 5 and ends[i] - starts[i] > 1:
        middle = _draw(rng, int(starts[i]) + 1, int(ends[i]))
        starts[j], ends[j] = middle, ends[i]
        ends[i] = middle
    else:
        width = _draw(rng, 1, int(most[i]) + 1)
        starts[i] = _draw(rng, 0, layers - width + 1)
        ends[i] = starts[i] + width
    return _possible(starts, ends, most, layers)


@compiled
def _snap(
    starts: Ints, ends: Ints, most: Ints, layers: int, i: int, rng: np.random.Generator
) -> None:
    """Begin a machine where another ends, and end it where a third begins, as far as it reaches."""
    before, after = _draw(rng, -1, len(starts)), _draw(rng, -1, len(starts))
    start = ends[before] if before >= 0 else 0
    start = 0 if start == layers else start
    end = starts[after] if after >= 0 else layers
    if end <= start or end - start > most[i]:
        end = min(start + _draw(rng, 1, int(most[i]) + 1), layers)
    starts[i], ends[i] = start, end


@compiled
def _shift(starts: Ints, ends: Ints, low: int, high: int, far: int, layers: int) -> None:
    """Move all boundaries from `low` to `high`; the ends of the model stay."""
    for i in range(len(starts)):
        if low <= starts[i] <= high and starts[i] > 0:
            starts[i] += far
        if low <= ends[i] <= high and ends[i] < layers:
            ends[i] += far


@compiled
def _possible(starts: Ints, ends: Ints, most: Ints, layers: int) -> bool:
    for i in range(len(starts)):
        out = starts[i] == OUT and ends[i] == OUT
        if not (out or (0 <= starts[i] < ends[i] <= layers and ends[i] - starts[i] <= most[i])):
            return False
    return True


@compiled
def _draw(rng: np.random.Generator, low: int, high: int) -> int:
    """Return a whole number from `low` to `high` - 1."""
    return int(rng.integers(low, high))


@compiled
def _coin(rng: np.random.Generator) -> bool:
    return _draw(rng, 0, 2) == 1
