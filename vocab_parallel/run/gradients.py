"""A rank's gradients between the passes and the update: summed over ranks, measured, clipped."""

import torch
import torch.distributed as dist
from torch import Tensor

from vocab_parallel.plan.plans import Plan
from vocab_parallel.run.links import Groups
from vocab_parallel.run.weights import EMBEDDING, Store

BUCKET = 1 << 21
"""Numbers that the replicas sum in one call; the calls follow each other without waiting."""
_NEVER_ZERO = 1e-6
"""Added to a norm that divides, as torch.nn.utils does."""


class Gradients:
    """The gradients of a packed store (`Store.pack`); all ranks call the same methods together."""

    def __init__(self, plan: Plan, groups: Groups, store: Store) -> None:
        self.groups, self.store = groups, store
        ends = {0, plan.schedule.place(plan.schedule.stages - 1)[0]}
        copies = plan.model.tied and not plan.schedule.barriers and len(ends) > 1
        self.copied = copies and groups.rank in ends
        """Whether this rank and another hold the same tied matrix, whole."""

    def sum(self) -> None:
        """Sum tied matrices' gradients over first and last rank, then all over the replicas."""
        if self.copied:
            dist.all_reduce(self.store.gradients[EMBEDDING], group=self.groups.ends)
        if self.groups.data is None:
            return
        pending = [
            dist.all_reduce(bucket, group=self.groups.data, async_op=True)
            for bucket in self.store.flat.split(BUCKET)
        ]
        for work in filter(None, pending):
            work.wait()

    def clip(self, most: float) -> float:
        """Return the norm of the whole model's gradient; scale the gradient down to `most`.

        0 leaves it as it is. What several ranks hold counts once.
        """
        squares = torch.zeros((), dtype=torch.float64, device=self.store.device)
        for name, gradient in self.store.gradients.items():
            own = self.groups.team.place == 0 or self.store.weights[name].is_split
            if own and not (self.copied and self.groups.rank > 0 and name == EMBEDDING):
                squares += square_sum(gradient)
        dist.all_reduce(squares, group=self.groups.vocabulary)
        norm = float(squares.sqrt())
        if most and norm > most:
            self.store.flat.mul_(most / (norm + _NEVER_ZERO))
        return norm


def square_sum(tensor: Tensor) -> Tensor:
    """Return the sum of a contiguous tensor's squares in float64, one bucket's copy at a time."""
    total = torch.zeros((), dtype=torch.float64, device=tensor.device)
    for part in tensor.view(-1).split(BUCKET):
        exact = part.double()
        total += torch.dot(exact, exact)
    return total
