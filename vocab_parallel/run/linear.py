"""Products with weights whose gradients go into the store when the stage says (`Stage.later`).

Shape suffixes: K all but the last dimension, O and I a matrix' rows and columns; N samples,
T tokens, H hidden.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  the name the whole field knows
from torch import Tensor

from vocab_parallel.run.accumulate import add_product

if TYPE_CHECKING:
    from vocab_parallel.run.model import Stage


class Linear(torch.autograd.Function):
    """x W^T + b. dW goes straight into the store, in its type, when the stage says."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stage: Stage, name: str
    ) -> Tensor:
        """Return this rank's columns."""
        ctx.save_for_backward(x)
        ctx.weight, ctx.stage, ctx.name = weight, stage, name
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return dx, summed over the team; keep dW and db for the stage."""
        _add_weight_gradients(ctx, grad)
        return ctx.stage.team.sum(grad @ ctx.weight), None, None, None, None


class JoiningLinear(torch.autograd.Function):
    """The same where x and W are cut along what is summed over: the team adds its parts up."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stage: Stage, name: str
    ) -> Tensor:
        """Return the sum of the team's parts."""
        ctx.save_for_backward(x)
        ctx.weight, ctx.stage, ctx.name = weight, stage, name
        if stage.team.size == 1:
            return F.linear(x, weight, bias)
        summed = stage.team.sum(F.linear(x, weight))
        return summed if bias is None else summed.add_(bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return dx; keep dW and db for the stage."""
        _add_weight_gradients(ctx, grad)
        return grad @ ctx.weight, None, None, None, None


def _add_weight_gradients(ctx: Any, grad: Tensor) -> None:
    (x,) = ctx.saved_tensors
    gradients, name = ctx.stage.store.gradients, ctx.name

    def work() -> None:
        grad_KO, x_KI = grad.flatten(0, -2), x.flatten(0, -2)
        add_product(gradients[name], grad_KO, x_KI)
        if name + "_bias" in gradients:
            gradients[name + "_bias"] += grad_KO.sum(0)

    ctx.stage.later(work)


class Add(torch.autograd.Function):
    """x + position."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, position: Tensor, stage: Stage, name: str) -> Tensor:
        """Return the sum."""
        ctx.stage, ctx.name = stage, name
        return x + position[: x.shape[1]]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return dx; the positions' gradient is in the store."""
        gradient = ctx.stage.store.gradients[ctx.name]
        gradient[: grad.shape[1]] += grad.sum(0)
        return grad, None, None, None
