"""A replica's share of the weights that all replicas hold: what it alone updates (ZeRO-1).

The weights of a rank stand one after the other, and each replica has an equal piece of that row
(Rajbhandari et al. 2020), so that gradients come and weights go by one collective each.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

# As torch calls them since 2.13, and before.
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


class Share:
    """Which elements of which weights are this replica's.

    `ranges` has, of each weight in it, the first and the end of the elements in its flat order.
    """

    def __init__(
        self, sizes: Mapping[str, int], replicas: int, replica: int, group: dist.ProcessGroup
    ) -> None:
        self.group, self.sizes = group, dict(sizes)
        self.count = sum(sizes.values())
        self.size = -(-self.count // replicas)
        """Elements of a share; the last one ends in elements of no weight."""
        self.padded = self.size * replicas
        begin, at = replica * self.size, 0
        self.ranges: dict[str, tuple[int, int]] = {}
        for name, size in sizes.items():
            first, end = max(begin - at, 0), min(begin + self.size - at, size)
            if first < end:
                self.ranges[name] = first, end
            at += size

    def cut(self, name: str, value: Tensor) -> Tensor:
        """Return this replica's elements of a weight, 1-D; a view where the weight is whole."""
        first, end = self.ranges[name]
        return value.detach().view(-1)[first:end]

    def reduce(self, flat: Tensor) -> tuple[Tensor, dist.Work]:
        """Start summing `padded` elements over the replicas; return where the own sums will be."""
        own = flat.new_empty(self.size)
        work = _reduce_scatter(own, flat, group=self.group, async_op=True)
        assert work is not None
        return own, work

    def parts(self, own: Tensor) -> dict[str, Tensor]:
        """Return a share's elements by weight, views."""
        sizes = [end - first for first, end in self.ranges.values()]
        return dict(zip(self.ranges, own[: sum(sizes)].split(sizes), strict=True))

    @torch.no_grad()
    def whole(self, held: Mapping[str, Tensor], like: Tensor) -> dict[str, Tensor]:
        """Return all replicas' elements by weight, 1-D, in the type and on the device of `like`."""
        own = like.new_zeros(self.size)
        for name, part in self.parts(own).items():
            part.copy_(held[name])
        every = like.new_empty(self.padded)
        _all_gather(every, own, group=self.group)
        parts = every[: self.count].split(list(self.sizes.values()))
        return dict(zip(self.sizes, parts, strict=True))

    def gather(self, held: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
        """Give the own elements to all replicas, and take theirs, into the weights."""
        like = next(iter(weights.values()))
        for name, value in self.whole(held, like).items():
            weights[name].copy_(value.view_as(weights[name]))
