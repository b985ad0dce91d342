"""Elementwise parts of a layer whose backward passes compute again what autograd would keep.

Shape suffixes: N samples, A heads, T tokens, D head width.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  the name the whole field knows
from torch import Tensor

from vocab_parallel.inputs.model import Model


def bent(x: Tensor, activation: str) -> Tensor:
    """Return the MLP's nonlinearity of x."""
    if activation == "silu":
        return F.silu(x)
    return F.gelu(x, approximate=_form(activation))


def _form(activation: str) -> str:
    return "tanh" if activation == "gelu_tanh" else "none"


class Gated(torch.autograd.Function):
    """up x bent(gate), of which up and gate alone are kept."""

    @staticmethod
    def forward(ctx: Any, up: Tensor, gate: Tensor, activation: str) -> Tensor:
        """Return the product."""
        ctx.save_for_backward(up, gate)
        ctx.activation = activation
        return bent(gate, activation).mul_(up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradients of up and gate."""
        up, gate = ctx.saved_tensors
        grad_up = bent(gate, ctx.activation).mul_(grad)
        behind = grad * up
        if ctx.activation == "silu":
            return grad_up, torch.ops.aten.silu_backward(behind, gate), None
        form = _form(ctx.activation)
        return grad_up, torch.ops.aten.gelu_backward(behind, gate, approximate=form), None


class Rotated(torch.autograd.Function):
    """Queries or keys turned by their positions (RoPE, Su et al. 2021, halves as pairs).

    Nothing is kept: the gradient is turned back.
    """

    @staticmethod
    def forward(ctx: Any, x_NATD: Tensor, model: Model, layer: int) -> Tensor:
        """Return x turned."""
        ctx.model, ctx.layer = model, layer
        return _turned(x_NATD, model, layer, forward=True)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradient turned back."""
        return _turned(grad, ctx.model, ctx.layer, forward=False), None, None


def _turned(x_NATD: Tensor, model: Model, layer: int, *, forward: bool) -> Tensor:
    tokens, width = x_NATD.shape[-2:]
    local = bool(model.windows) and model.windows[layer] > 0 and model.rope_local_theta > 0
    theta = model.rope_local_theta if local else model.rope_theta
    steps_D = torch.arange(0, width, 2, dtype=torch.float64, device=x_NATD.device) / width
    places_T = torch.arange(tokens, dtype=torch.float64, device=x_NATD.device)
    places_T = places_T / (1.0 if local else model.rope_factor)
    angles_TD = (places_T[:, None] * theta**-steps_D).repeat(1, 2)
    cos_TD, sin_TD = (part.to(x_NATD) for part in (angles_TD.cos(), angles_TD.sin()))
    low_NATD, high_NATD = x_NATD.chunk(2, -1)
    pair = [-high_NATD, low_NATD] if forward else [high_NATD, -low_NATD]
    return x_NATD * cos_TD + torch.cat(pair, -1) * sin_TD
