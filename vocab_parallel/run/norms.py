"""Norms whose gradients of scale and shift go into the store at once (they are small)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from vocab_parallel.run.model import Stage


class LayerNorm(torch.autograd.Function):
    """(x - mean) / deviation, times a scale, plus a shift."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, stage: Stage, *names: str
    ) -> Tensor:
        """Return the norm of x along its last dimension."""
        eps = stage.model.norm_eps
        y, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], scale, shift, eps)
        ctx.save_for_backward(x, mean, rstd)
        ctx.scale, ctx.shift, ctx.stage, ctx.names = scale, shift, stage, names
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return dx; the weights' gradients are in the store."""
        x, mean, rstd = ctx.saved_tensors
        dx, dscale, dshift = torch.ops.aten.native_layer_norm_backward(
            grad, x, x.shape[-1:], mean, rstd, ctx.scale, ctx.shift, [True, True, True]
        )
        gradients = ctx.stage.store.gradients
        gradients[ctx.names[0]] += dscale
        gradients[ctx.names[1]] += dshift
        return dx, None, None, None, None, None


class RootMeanSquareNorm(torch.autograd.Function):
    """x / sqrt(mean x^2 + eps), times a scale (1 + its weight where the model has an offset).

    In float32 at least. `shared`: the team's ranks norm different heads by one scale, so that they
    sum its gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, stage: Stage, name: str, shared: bool
    ) -> Tensor:
        """Return the norm of x along its last dimension."""
        exact = torch.promote_types(x.dtype, torch.float32)
        wide, factor = x.to(exact), scale.to(exact) + stage.model.norm_offset
        rstd = (wide.square().mean(-1, keepdim=True) + stage.model.norm_eps).rsqrt()
        ctx.save_for_backward(x, rstd)
        ctx.factor, ctx.stage, ctx.name, ctx.shared = factor, stage, name, shared
        return (wide * rstd * factor).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return dx; the weights' gradients are in the store."""
        x, rstd = ctx.saved_tensors
        normed, wide = x.to(rstd.dtype) * rstd, grad.to(rstd.dtype)
        dscale = (wide * normed).flatten(0, -2).sum(0)
        if ctx.shared:
            dscale = ctx.stage.team.sum(dscale)
        ctx.stage.store.gradients[ctx.name] += dscale
        passed = wide * ctx.factor
        dx = rstd * (passed - normed * (passed * normed).mean(-1, keepdim=True))
        return dx.to(x.dtype), None, None, None, None
