"""The vocabulary's two layers as modules for a trainer of one's own, cut by rows over a group.

`VocabParallelEmbedding` and `VocabParallelCrossEntropy` take the place of `nn.Embedding` and of the
output layer with its loss, under autograd. A trainer that schedules itself calls the latter's `S`
and `T` (paper §4), which are passes without autograd: T may come any time after S.

Shape suffixes: N tokens, H hidden, V the rows that this rank holds, P ranks, K statistics.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from common.errors import InputError
from vocab_parallel.inputs.model import padded_vocabulary
from vocab_parallel.run import output
from vocab_parallel.run.input import InputShard, add_gradient, look_up
from vocab_parallel.run.output import IGNORED, Combined, Labels, Passed, Rules, Shard

Group = dist.ProcessGroup | None


class _Rows(nn.Module):
    """A rank's rows of a vocabulary matrix; padded rows are zero and stay it."""

    def __init__(
        self,
        vocabulary: int,
        hidden: int,
        group: Group = None,
        *,
        weight: nn.Parameter | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.vocabulary, self.group = vocabulary, group
        world, rank = dist.get_world_size(group), dist.get_rank(group)
        rows = padded_vocabulary(vocabulary, world) // world
        self.first = rank * rows
        self.real = max(0, min(rows, vocabulary - self.first))
        if weight is not None and tuple(weight.shape) != (rows, hidden):
            raise InputError(
                f"weight is {tuple(weight.shape)}, expected ({rows}, {hidden}): this rank's rows of"
                f" a vocabulary of {vocabulary} on {world} ranks"
            )
        made = torch.zeros(rows, hidden, device=device, dtype=dtype)
        made[: self.real].normal_(0.0, 0.02)
        self.weight = nn.Parameter(made) if weight is None else weight
        """Tied matrices: give one module's weight to the other."""

    @torch.no_grad()
    def load_rows(self, whole_VH: Tensor) -> None:
        """Take this rank's rows of a whole matrix of `vocabulary` rows."""
        self.weight[: self.real] = whole_VH[self.first : self.first + self.real].to(self.weight)


class VocabParallelEmbedding(_Rows):
    """`nn.Embedding` cut by rows: ids of any shape to embeddings, the same on every rank."""

    def forward(self, ids: Tensor) -> Tensor:
        """Return the embeddings; all ranks of the group call it together with the same ids.

        Raises:
            InputError: an id is none of the vocabulary (on a CPU: a GPU would be waited for).
        """
        _check(ids, self.vocabulary, "id", ids < 0)
        return _LookUp.apply(ids, self.weight, self)


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor, rows: VocabParallelEmbedding) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.weight, ctx.first = weight, rows.first
        found_NH = look_up(ids.flatten(), InputShard(weight, rows.first))
        dist.all_reduce(found_NH, group=rows.group)
        return found_NH.unflatten(0, ids.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (ids,) = ctx.saved_tensors
        sums_VH = torch.zeros_like(ctx.weight, dtype=output.statistics_type(grad.dtype))
        add_gradient(sums_VH, ids.flatten(), grad.flatten(0, -2), InputShard(ctx.weight, ctx.first))
        return None, sums_VH.to(ctx.weight.dtype), None


class Half(NamedTuple):
    """What S leaves for T."""

    x: Tensor  # N, H
    labels: Tensor  # N
    passed: Passed
    found: Combined

    @property
    def loss(self) -> Tensor:
        """Loss of every token in nat, 0 where the label is IGNORED (-100)."""
        return self.found.loss


class VocabParallelCrossEntropy(_Rows):
    """The output layer and its cross entropy, cut by rows: X and labels to the tokens' losses.

    `rules`: algorithm (vocab-1, or vocab-2 with one barrier less), label smoothing, tokens a block,
    what S keeps, soft cap of the logits.
    """

    def __init__(
        self,
        vocabulary: int,
        hidden: int,
        group: Group = None,
        *,
        rules: Rules | None = None,
        **more: Any,
    ) -> None:
        super().__init__(vocabulary, hidden, group, **more)
        self.rules = rules or Rules()

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return the losses, of the labels' shape; all ranks call it with the same X and labels.

        Raises:
            InputError: a label is none of the vocabulary and not -100 (on a CPU).
        """
        return _Loss.apply(x, labels, self.weight, self)

    def S(self, x: Tensor, labels: Tensor) -> Half:  # noqa: N802  the paper's name
        """Compute the losses and what T needs, without autograd."""
        _check(labels, self.vocabulary, "label", (labels < 0) & (labels != IGNORED))
        with torch.no_grad():
            x_NH, labels_N = x.detach().flatten(0, -2), labels.flatten()
            shard, own = self._own(labels_N, torch.ones_like(labels_N, dtype=torch.float32))
            passed = output.s_pass(x_NH, shard, own, self.rules)
            world, rank = dist.get_world_size(self.group), dist.get_rank(self.group)
            gathered_PKN = passed.local.new_empty(world, *passed.local.shape)
            dist.all_gather(list(gathered_PKN.unbind()), passed.local, group=self.group)
            found = output.combine(gathered_PKN, rank, shard, own, self.rules)
        return Half(x_NH, labels_N, passed, found)

    def T(self, half: Half, gamma: Tensor, into: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: N802
        """Return dX, summed over the ranks, and this rank's dW (added to `into` where given).

        `gamma` is dL / dloss of every token. What S kept is used up.
        """
        with torch.no_grad():
            shard, own = self._own(half.labels, gamma.flatten())
            early = None
            if self.rules.algorithm != "vocab-1":
                early = output.early_gradient(half.passed, half.found, own, self.rules)
            dw_VH, late = output.t_pass(
                half.x, half.passed, half.found, shard, own, self.rules, into=into
            )
            dx_NH = late if early is None else early
            assert dx_NH is not None
            dist.all_reduce(dx_NH, group=self.group)
        return dx_NH, dw_VH

    def _own(self, labels_N: Tensor, gamma_N: Tensor) -> tuple[Shard, Labels]:
        shard = Shard(self.weight.detach(), self.first, self.real, self.vocabulary)
        return shard, output.shard_labels(labels_N, gamma_N, shard)


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, labels: Tensor, weight: Tensor, layer: VocabParallelCrossEntropy
    ) -> Tensor:
        ctx.half, ctx.layer, ctx.shape, ctx.kind = layer.S(x, labels), layer, x.shape, weight.dtype
        return ctx.half.loss.view(labels.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if ctx.half is None:
            raise InputError("backward was called twice: what S kept is used up by T")
        half, ctx.half = ctx.half, None
        dx_NH, dw_VH = ctx.layer.T(half, grad)
        return dx_NH.view(ctx.shape), None, dw_VH.to(ctx.kind), None


def _check(values: Tensor, vocabulary: int, what: str, wrong: Tensor) -> None:
    if values.device.type != "cpu":
        return
    wrong = wrong | (values >= vocabulary)
    if bool(wrong.any()):
        also = f", or {IGNORED} for a token without loss" if what == "label" else ""
        raise InputError(
            f"{what} {int(values[wrong][0])} is none of a vocabulary of {vocabulary}: expected 0 to"
            f" {vocabulary - 1}{also}"
        )
