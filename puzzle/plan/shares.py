"""How much of every generation place each training place holds, without going through the tensors.

All cut tensors of a layer are cut into equal slices, so the elements that a training place (s, t)
and a generation place (s', t') share are the cut elements of the layers that both stages hold times
the part of the cut axis that both slices hold; the norms, which no slice cuts, come on top.
"""

from functools import lru_cache
from math import lcm
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from puzzle.inputs.layout import Layout, stage_layers
from puzzle.inputs.model import Llama, Role, tensors

Counts = NDArray[np.int64]


class Shares(NamedTuple):
    """Elements that training and generation places have in common."""

    cut: Counts
    """P x P': of cut tensors in the layers of both stages, per piece of a slice."""
    norms: Counts
    """P x P': of what is not cut."""
    pieces: Counts
    """T x T': pieces of the cut axis that both slices hold."""
    whole: int
    """Pieces of a generation slice."""

    def of(self, stage: int, part: int, new_stage: int, new_part: int) -> int:
        """Return the cut elements that a training and a generation place share."""
        return int(self.cut[stage, new_stage] * self.pieces[part, new_part])

    def resident(self) -> Counts:
        """Return the elements that (s, t) holds of (s', t'), P T x P' T'."""
        p, p_new = self.cut.shape
        t, t_new = self.pieces.shape
        cut = self.cut[:, None, :, None] * self.pieces[None, :, None, :]
        both = cut + self.norms[:, None, :, None]
        return both.reshape(p * t, p_new * t_new)

    def needed(self) -> Counts:
        """Return the elements of a generation place, by stage."""
        return self.cut.sum(0) * self.whole + self.norms.sum(0)


@lru_cache(maxsize=8192)
def shares(model: Llama, role: Role, train: Layout, generate: Layout) -> Shares:
    """Return what the places of two layouts have in common; replicas make no difference."""
    parts = lcm(train.tensor, generate.tensor)
    before = _before(model, role)
    old, new = (_ranges(model, layout) for layout in (train, generate))
    begin = np.maximum(old[:, None, 0], new[None, :, 0])
    end = np.maximum(begin, np.minimum(old[:, None, 1], new[None, :, 1]))
    cut, norms = (counts[end] - counts[begin] for counts in before)
    one, two = parts // train.tensor, parts // generate.tensor
    first = np.maximum(
        np.arange(train.tensor)[:, None] * one, np.arange(generate.tensor)[None] * two
    )
    last = np.minimum(
        (np.arange(train.tensor)[:, None] + 1) * one, (np.arange(generate.tensor)[None] + 1) * two
    )
    return Shares(cut // parts, norms, np.maximum(0, last - first), two)


@lru_cache(maxsize=64)
def _before(model: Llama, role: Role) -> tuple[Counts, Counts]:
    """Return the cut and the other elements before each layer, what stages' ends hold included."""
    sizes = np.zeros((2, model.layers + 3), dtype=np.int64)
    for tensor in tensors(model, role):
        sizes[int(tensor.axis is None), tensor.layer + 2] += tensor.size
    cut, norms = sizes.cumsum(1)
    return cut, norms


def _ranges(model: Llama, layout: Layout) -> Counts:
    """Return the layers of each stage, counted from the embedding as 0, P x 2."""
    found: list[tuple[int, int]] = []
    for stage in range(layout.pipeline):
        layers = stage_layers(model.layers, layout.pipeline, stage)
        first = 0 if stage == 0 else layers.start + 1
        after = model.layers + 2 if stage == layout.pipeline - 1 else layers.stop + 1
        found.append((first, after))
    return np.array(found)
