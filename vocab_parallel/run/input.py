"""The sharded input layer: IF looks up this rank's rows, IB adds up their gradient (paper §4.4).

Shape suffixes: N tokens, H hidden, V the rows that this rank holds.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class InputShard(NamedTuple):
    """This rank's rows of the embedding matrix: `first`, `first` + 1, ..."""

    weight: Tensor  # V, H
    first: int


def look_up(ids_N: Tensor, shard: InputShard) -> Tensor:
    """Return the embeddings of this rank's ids, zero for all others: summed over ranks it is x."""
    row_N, owned_N = _rows(ids_N, shard)
    # Zeroed after the lookup: row 0 stands in for every id of another rank.
    return shard.weight[row_N] * owned_N[:, None]


def add_gradient(gradient_VH: Tensor, ids_N: Tensor, grad_NH: Tensor, shard: InputShard) -> None:
    """Add the gradient of this rank's rows, in the type of `gradient_VH`."""
    row_N, owned_N = _rows(ids_N, shard)
    kept_N = owned_N.nonzero()[:, 0]
    gradient_VH.index_add_(0, row_N[kept_N], grad_NH[kept_N].to(gradient_VH.dtype))


def _rows(ids_N: Tensor, shard: InputShard) -> tuple[Tensor, Tensor]:
    row_N = ids_N - shard.first
    owned_N = (row_N >= 0) & (row_N < len(shard.weight))
    return torch.where(owned_N, row_N, 0), owned_N
