"""Advantages without a critic: an answer against the others to its prompt, or against the batch.

Answers to one prompt follow each other in the batch, which replicas share out, so scores are
brought together first: what is learnt does not depend on the cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from puzzle.inputs.ppo import Ppo

_NEVER_ZERO = 1e-4
"""Added to the deviation of a group whose answers may all have one score."""


class Spread(NamedTuple):
    """How a batch's answers are spread over replicas."""

    rows: Sequence[Sequence[int]]
    """By replica, the numbers of its answers in the batch."""
    replica: int
    group: dist.ProcessGroup | None
    """Has the replicas in order; None where there is one."""


def whole_batch(values_N: Tensor, spread: Spread) -> Tensor:
    """Return a figure of every answer of the batch, in its order, given this replica's."""
    parts = [values_N]
    if spread.group is not None:
        parts = [torch.empty_like(values_N) for _ in spread.rows]
        dist.all_gather(parts, values_N.contiguous(), group=spread.group)
    whole = values_N.new_empty(sum(map(len, spread.rows)))
    for rows, part in zip(spread.rows, parts, strict=True):
        whole[list(rows)] = part
    return whole


def against_others(returns_B: Tensor, ppo: Ppo) -> Tensor:
    """Return each answer's advantage over the others to its prompt, float64.

    With r_1 ... r_n of one prompt: `grpo` (r_i - mean) / (s + 1e-4), s^2 = sum (r_j - mean)^2 /
    (n - 1) (Shao et al. 2024, section 4.1.2); `rloo` r_i - sum_{j != i} r_j / (n - 1) (Ahmadian et
    al. 2024, section 2.3).
    """
    r = returns_B.double().view(-1, ppo.samples)
    apart = r - r.mean(1, keepdim=True)
    if ppo.algorithm == "rloo":
        return (apart * (ppo.samples / (ppo.samples - 1))).flatten()
    return (apart / (r.std(1, keepdim=True) + _NEVER_ZERO)).flatten()


def group_advantages(rewards_NA: Tensor, mask_NA: Tensor, ppo: Ppo, spread: Spread) -> Tensor:
    """Return every token's advantage, N x A: that of its answer, whose return is its rewards' sum.

    The divergence is in the return where it is in the rewards.
    """
    returns = (rewards_NA * mask_NA).double().sum(1)
    every = against_others(whole_batch(returns, spread), ppo)
    mine = every[list(spread.rows[spread.replica])]
    return (mine[:, None] * mask_NA).to(rewards_NA.dtype)
