"""The sharded input layer: IF looks up this rank's rows, IB adds up their gradient (paper §4.4).

Shape suffixes: N tokens, H hidden, V the rows that this rank holds.
"""

from typing import NamedTuple

from torch import Tensor


class InputShard(NamedTuple):
    """This rank's rows of the embedding matrix: `first`, `first` + 1, ..."""

    weight: Tensor  # V, H
    first: int


def look_up(ids_N: Tensor, shard: InputShard) -> Tensor:
    """Return the embeddings of this rank's ids, zero for all others: summed over ranks it is x."""
    row_N, owned_N = _rows(ids_N, shard)
    # Zeroed after the lookup: some row stands in for every id of another rank.
    return shard.weight[row_N] * owned_N[:, None]


def add_gradient(gradient_VH: Tensor, ids_N: Tensor, grad_NH: Tensor, shard: InputShard) -> None:
    """Add the gradient of this rank's rows, in the type of `gradient_VH`."""
    row_N, owned_N = _rows(ids_N, shard)
    # To choose the owned tokens would need their number, for which the host waits on a GPU.
    mine_NH = grad_NH.where(owned_N[:, None], 0).to(gradient_VH.dtype)
    gradient_VH.index_add_(0, row_N, mine_NH)


def _rows(ids_N: Tensor, shard: InputShard) -> tuple[Tensor, Tensor]:
    """Return a row for every id, and which are this rank's.

    Other ranks' ids are spread over the rows: many additions to one row would wait for each other.
    """
    row_N, count = ids_N - shard.first, len(shard.weight)
    return row_N % count, (row_N >= 0) & (row_N < count)
