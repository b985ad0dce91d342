"""Tensor parallelism: the ranks that share a pipeline position, and how they cut a weight.

As Megatron (Shoeybi et al. 2019): query, key, value and the MLP's first matrix are cut by rows, the
attention's and the MLP's second matrix by columns, so that two sums per layer and direction do.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor


class Team(NamedTuple):
    """The `size` ranks of one pipeline position; this rank is the one at `place`."""

    group: dist.ProcessGroup | None = None
    place: int = 0
    size: int = 1

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over the team, in place; all wait for it (on CUDA their streams)."""
        if self.size > 1:
            dist.all_reduce(tensor, group=self.group)
        return tensor


ALONE = Team()


class Cut(NamedTuple):
    """Which part of a weight a rank holds: `place` of `size` along an axis.

    `blocks`: matrices that lie one below the other and are each cut (query, key and value: 3).
    """

    axis: int
    blocks: int = 1
    place: int = 0
    size: int = 1


def own_part(whole: Tensor, cut: Cut) -> Tensor:
    """Return a rank's part of a whole weight."""
    blocks = whole.unflatten(cut.axis, (cut.blocks, -1))
    return blocks.chunk(cut.size, cut.axis + 1)[cut.place].flatten(cut.axis, cut.axis + 1)


def joined(parts: list[Tensor], cut: Cut) -> Tensor:
    """Return the whole weight of all parts in order: the inverse of `own_part`."""
    blocks = [part.unflatten(cut.axis, (cut.blocks, -1)) for part in parts]
    return torch.cat(blocks, cut.axis + 1).flatten(cut.axis, cut.axis + 1)
