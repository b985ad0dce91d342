"""What the workers of a group hand each other: activations stage to stage, sums within a stage.

Made for NCCL's rules, where everything on one communicator is carried out in the order in which it
was posted, and a send ends only when its receive is reached: every pair of neighbours has a group
of its own, so that no receive of a stage waits behind a send that the next one has not taken yet.
All workers make all groups, and connect them, in one order; a first exchange would otherwise hold
its host at a moment when another's does too.
"""

from collections import deque
from typing import NamedTuple

import torch
import torch.distributed as dist

MOST_SENDING = 8


class _Sending(NamedTuple):
    work: dist.Work
    kept: torch.Tensor
    """Must stay as it is until the work is done."""


class Exchange:
    """The communicators of rank `stage * op + part` of a group that all its ranks have entered."""

    def __init__(self, rank: int, op: int, pp: int, device: torch.device) -> None:
        self.rank, self.op, self.device = rank, op, device
        self.sending = deque[_Sending]()
        self.within: dist.ProcessGroup | None = None
        self.before: dist.ProcessGroup | None = None
        self.after: dist.ProcessGroup | None = None
        for stage in range(pp if op > 1 else 0):
            ranks = range(stage * op, (stage + 1) * op)
            made = _group([*ranks])
            if rank in ranks:
                self.within = made
                dist.all_reduce(self._token(), group=made)
        for source in range((pp - 1) * op):
            target = source + op
            made = _group([source, target])
            if rank == source:
                self.after = made
                dist.send(self._token(), target, group=made)
            elif rank == target:
                self.before = made
                dist.recv(self._token(), source, group=made)

    def receive(self, x: torch.Tensor) -> None:
        """Fill a tensor with what the stage before hands on."""
        dist.recv(x, self.rank - self.op, group=self.before)

    def send(self, x: torch.Tensor) -> None:
        """Hand a tensor on without waiting until it is taken; a few may be under way."""
        if len(self.sending) == MOST_SENDING:
            self.sending.popleft().work.wait()
        sent = x.contiguous()
        work = dist.isend(sent, self.rank + self.op, group=self.after)
        assert work is not None
        self.sending.append(_Sending(work, sent))

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        """Add up what the workers of the stage hold, in place."""
        dist.all_reduce(x, group=self.within)
        return x

    def _token(self) -> torch.Tensor:
        return torch.zeros(1, device=self.device)


def _group(ranks: list[int]) -> dist.ProcessGroup | None:
    """Make a group, as all ranks must; None on those that are not in it."""
    made = dist.new_group(ranks)
    return made if isinstance(made, dist.ProcessGroup) else None
