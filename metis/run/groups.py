"""The process groups of a plan: tensor slices, data replicas, and both ways over each boundary.

`torch.distributed` wants every rank to create every group in the same order, so all are made here.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import torch
import torch.distributed as dist

from metis.plan.plans import Plan, Stage
from metis.run.layout import Position, data_ranks, position, tensor_ranks
from metis.run.parallel import TensorGroup


class Groups:
    """The groups that one rank belongs to; a group of one rank is None."""

    def __init__(self, plan: Plan, rank: int, timeout_s: float) -> None:
        self.me: Position = position(plan, rank)
        self.rank = rank
        self.timeout = timedelta(seconds=timeout_s)
        stages, own = plan.stages, plan.stages[self.me.stage]
        tensor = [
            self._group(tensor_ranks(stage, replica))
            for stage in stages
            for replica in range(stage.dp)
        ]
        data = [self._group(data_ranks(stage, k)) for stage in stages for k in range(stage.tp)]
        both = [self._boundary(*pair) for pair in pairwise(stages)]
        self.tensor = TensorGroup(_mine(tensor), self.me.slice, own.tp)
        self.data = _mine(data)
        self.forward = [forward for forward, _ in both]
        self.backward = [backward for _, backward in both]

    def warm_up(self, device: torch.device) -> None:
        """Meet once in every group: NCCL wants all ranks in a group's first call."""
        for group in (
            self.tensor.group,
            self.data,
            *self.forward,
            *self.backward,
            dist.group.WORLD,
        ):
            if group is not None:
                dist.all_reduce(torch.zeros(1, device=device), group=group)

    def _boundary(
        self, before: Stage, after: Stage
    ) -> tuple[dist.ProcessGroup | None, dist.ProcessGroup | None]:
        ranks = list(range(before.first_rank, after.first_rank + after.devices))
        return self._group(ranks), self._group(ranks)

    def _group(self, ranks: list[int]) -> dist.ProcessGroup | None:
        """Create a group; return it if this rank is in it."""
        if len(ranks) == 1:
            return None
        group = dist.new_group(ranks, timeout=self.timeout)
        return group if isinstance(group, dist.ProcessGroup) and self.rank in ranks else None


def _mine(groups: list[dist.ProcessGroup | None]) -> dist.ProcessGroup | None:
    """Return the one group that this rank is in."""
    found = [group for group in groups if group is not None]
    assert len(found) <= 1, "a rank is in one tensor group and in one data group"
    return found[0] if found else None
