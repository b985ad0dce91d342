"""Tensor parallelism: how the ranks of one replica share every matrix multiplication.

A pair of matrices is split by columns, then by rows (Megatron-LM, Shoeybi et al. 2019, §3): the
input is spread to all ranks, each computes its slice, the partial results are totalled. The
vocabulary is split over the ranks too, in the embedding and in the head with its cross entropy.

Shape suffixes: N samples, T tokens, H hidden, V this rank's part of the vocabulary.
"""

from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function


class TensorGroup:
    """The ranks that hold the slices of one replica; `group` is None for a rank on its own."""

    def __init__(self, group: dist.ProcessGroup | None, index: int, size: int) -> None:
        self.group, self.index, self.size = group, index, size

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Return this group: a copied layer stays on its ranks."""
        return self

    def share(self, total: int) -> range:
        """Return which of `total` entries are this rank's; shares differ by one at most."""
        base, extra = divmod(total, self.size)
        start = self.index * base + min(self.index, extra)
        return range(start, start + base + (self.index < extra))

    def slice(self, full: Tensor, dim: int | None) -> Tensor:
        """Return this rank's part of a full tensor."""
        if dim is None:
            return full
        mine = self.share(full.shape[dim])
        return full.narrow(dim, mine.start, len(mine))

    def spread(self, x: Tensor) -> Tensor:
        """Hand the same tensor to all slices; the gradient is the sum of theirs."""
        return x if self.group is None else _apply(_Spread, x, self.group)

    def total(self, x: Tensor) -> Tensor:
        """Sum the slices' partial results; the gradient goes to all of them."""
        return x if self.group is None else _apply(_Total, x, self.group)

    def gather(self, part: Tensor) -> Tensor:
        """Return all ranks' parts side by side along the last dimension (no gradient)."""
        if self.group is None:
            return part
        parts = [torch.empty_like(part) for _ in range(self.size)]
        dist.all_gather(parts, part, group=self.group)
        return torch.cat(parts, dim=-1)

    def cross_entropy(self, logits_NTV: Tensor, labels_NT: Tensor, vocabulary: int) -> Tensor:
        """Return each token's loss in nat from this rank's columns of the logits."""
        first = self.share(vocabulary).start
        return _apply(_CrossEntropy, logits_NTV, labels_NT, first, self.group)


def sum_over(x: Tensor, group: dist.ProcessGroup | None, op: Any = dist.ReduceOp.SUM) -> Tensor:
    """Reduce a tensor in place over a group, if there is one, and return it."""
    if group is not None:
        dist.all_reduce(x, op=op, group=group)
    return x


def _apply(function: type[Function], *arguments: object) -> Tensor:
    """Call an autograd function (its own `apply` has no types)."""
    result: Tensor = function.apply(*arguments)  # pyright: ignore[reportAssignmentType]
    return result


class _Spread(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return sum_over(grads[0].clone(memory_format=torch.contiguous_format), ctx.group), None


class _Total(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        return sum_over(x.clone(memory_format=torch.contiguous_format), group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class _CrossEntropy(Function):
    """-log softmax(logits)[label] over a split vocabulary: three reductions of one value a token.

    bfloat16 logits are summed in float32.
    """

    @staticmethod
    def forward(
        ctx: Any, logits_NTV: Tensor, labels_NT: Tensor, first: int, group: dist.ProcessGroup | None
    ) -> Tensor:
        dtype = torch.promote_types(logits_NTV.dtype, torch.float32)
        x_NTV = logits_NTV.to(dtype)
        top_NT = sum_over(x_NTV.amax(-1), group, dist.ReduceOp.MAX)
        x_NTV = x_NTV - top_NT[..., None]
        mine_NT = (labels_NT >= first) & (labels_NT < first + x_NTV.shape[-1])
        column_NT1 = torch.where(mine_NT, labels_NT - first, 0)[..., None]
        label_NT = sum_over(x_NTV.gather(-1, column_NT1)[..., 0] * mine_NT, group)
        weight_NTV = x_NTV.exp()
        total_NT = sum_over(weight_NTV.sum(-1), group)
        ctx.save_for_backward(weight_NTV / total_NT[..., None], column_NT1, mine_NT)
        ctx.dtype = logits_NTV.dtype
        return total_NT.log() - label_NT

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (grad_NT,) = grads
        softmax_NTV, column_NT1, mine_NT = ctx.saved_tensors
        grad_NTV = softmax_NTV * grad_NT[..., None]
        grad_NTV.scatter_add_(-1, column_NT1, -(grad_NT * mine_NT)[..., None])
        return grad_NTV.to(ctx.dtype), None, None, None
