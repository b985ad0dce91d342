"""Means and deviations over replicas, exact."""

from __future__ import annotations

from math import sqrt

import torch
import torch.distributed as dist
from torch import Tensor

from puzzle.run.adapted import LEAST_VARIANCE, Moments


def moments_of(values: Tensor, mask: Tensor, group: dist.ProcessGroup | None) -> Moments:
    """Return the moments of the values where the mask is not 0, over all replicas of `group`.

    In two passes of float64 sums, the second about the mean: the sum of squares less the square of
    the sum loses all digits where the mean is large beside the deviation.
    """
    values, chosen = values.double(), (mask != 0).double()
    count, total = _summed(torch.stack([chosen.sum(), (values * chosen).sum()]), group)
    mean = total / max(1.0, count)
    (squares,) = _summed(((values - mean).square() * chosen).sum()[None], group)
    return Moments(count, mean, squares)


def _summed(sums: Tensor, group: dist.ProcessGroup | None) -> list[float]:
    if group is not None:
        dist.all_reduce(sums, group=group)
    return sums.tolist()


def whitened(values: Tensor, mask: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Return (v - mean) / deviation where the mask is not 0, and 0 elsewhere, over all replicas.

    The deviation is the root of the mean square of v - mean, and at least 1e-4.
    """
    moments = moments_of(values, mask, group)
    deviation = sqrt(max(LEAST_VARIANCE, moments.variance))
    apart = (values.double() - moments.mean) / deviation
    return (apart * (mask != 0)).to(values.dtype)
