"""One loss of many tokens: each part's share of a mean over the global mini-batch.

A mean of micro-batches' means is another objective for every cut, as soon as answers are of unlike
lengths. Here the counts come first, summed over replicas, and each micro-batch gives its sum over
them: the shares of all parts add up to the mean, whatever the parts.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from puzzle.inputs.ppo import LossMean


class Totals(NamedTuple):
    """Of a global mini-batch: learnt tokens, and answers that have any."""

    tokens: float
    answers: float


def totals_of(masks: Sequence[Tensor], group: dist.ProcessGroup | None = None) -> list[Totals]:
    """Return the totals of mini-batches, given this replica's masks N x A of each.

    `group` has the other replicas; all counts go in one message. At least 1 each, so that the mean
    over nothing is 0.
    """
    counts = torch.stack([torch.stack([m.sum(), (m > 0).any(1).sum()]).double() for m in masks])
    if group is not None:
        dist.all_reduce(counts, group=group)
    return [Totals(*pair) for pair in counts.clamp(min=1).tolist()]


def share_of_mean(
    values_NA: Tensor, mask_NA: Tensor, how: LossMean, totals: Totals | None = None
) -> Tensor:
    """Return what these answers add to the mean of a token's figure over the mini-batch.

    With m the mask, t its tokens, n its answers that have any: token-mean sum(m v) / t;
    sequence-mean sum_i (sum_j m_ij v_ij / sum_j m_ij) / n; sequence-mean-token-sum sum(m v) / n.
    Without `totals` these answers are all of it.
    """
    totals = totals or totals_of([mask_NA])[0]
    sums = (values_NA * mask_NA).sum(1)
    if how == "token-mean":
        return sums.sum() / totals.tokens
    if how == "sequence-mean":
        sums = sums / mask_NA.sum(1).clamp(min=1)
    return sums.sum() / totals.answers


def replica_rows(batch: int, mini_batch: int, replicas: int, replica: int) -> list[int]:
    """Return which answers of a batch a replica learns from: its part of each mini-batch in turn.

    Mini-batches are of answers that follow each other in the batch, the same in every layout.
    """
    part = mini_batch // replicas
    return [
        start + replica * part + row for start in range(0, batch, mini_batch) for row in range(part)
    ]
