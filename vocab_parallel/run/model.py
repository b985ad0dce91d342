"""A pipeline stage: pre-norm transformer layers whose weight gradients can wait for a W pass.

Shape suffixes: N samples, T tokens, H hidden, A heads, D head width; K all but the last dimension.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  the name the whole field knows
from torch import Tensor

from vocab_parallel.inputs.model import Model
from vocab_parallel.run.accumulate import add_product
from vocab_parallel.run.tensor import ALONE, Team
from vocab_parallel.run.weights import POSITION, Store, Weight, layer_weights, norm_weights

Work = Callable[[], None]


class Stage:
    """Some transformer layers of one rank, with positions before or the final norm behind them."""

    def __init__(
        self,
        model: Model,
        store: Store,
        *,
        layers: range,
        first: bool,
        last: bool,
        team: Team = ALONE,
    ) -> None:
        self.model, self.store, self.layers, self.team = model, store, layers, team
        self.first, self.last = first, last
        self.waiting: list[Work] | None = None
        for number in layers:
            for weight in layer_weights(number, model.hidden, model.wide, team):
                store.add(weight)
        if first:
            store.add(Weight(POSITION, (model.sequence, model.hidden)))
        for weight in norm_weights(model.hidden) if last else ():
            store.add(weight)

    def forward(self, x_NTH: Tensor) -> Tensor:
        """Return the stage's output; the last stage's is normed (the paper's X)."""
        if self.first:
            x_NTH = self._add(x_NTH, POSITION)
        for number in self.layers:
            x_NTH = self._layer(x_NTH, f"layer{number}.")
        return self._norm(x_NTH, "norm_scale", "norm_shift") if self.last else x_NTH

    def backward(self, y_NTH: Tensor, grad_NTH: Tensor, *, keep_work: bool) -> list[Work]:
        """Run the backward pass; with `keep_work` return the weight gradients as work to do."""
        self.waiting = [] if keep_work else None
        torch.autograd.backward(y_NTH, grad_NTH)
        work, self.waiting = self.waiting or [], None
        return work

    def _layer(self, x_NTH: Tensor, at: str) -> Tensor:
        normed_NTH = self._norm(x_NTH, at + "scale", at + "shift")
        x_NTH = x_NTH + self._attend(normed_NTH, at)
        normed_NTH = self._norm(x_NTH, at + "mlp_scale", at + "mlp_shift")
        wide = F.gelu(self._linear(normed_NTH, at + "up"))
        return x_NTH + self._joining(wide, at + "down")

    def _attend(self, x_NTH: Tensor, at: str) -> Tensor:
        packed = self._linear(x_NTH, at + "qkv")
        packed = packed.unflatten(-1, (3, self.model.heads // self.team.size, -1))
        q_NATD, k_NATD, v_NATD = (part.transpose(1, 2) for part in packed.unbind(2))
        out_NATD = F.scaled_dot_product_attention(q_NATD, k_NATD, v_NATD, is_causal=True)
        return self._joining(out_NATD.transpose(1, 2).flatten(2), at + "merge")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        """Return this rank's columns of x W^T + b, from the whole x."""
        values = self.store.values
        return _Linear.apply(x, values[name], values[name + "_bias"], self, name)

    def _joining(self, x: Tensor, name: str) -> Tensor:
        """Return the whole x W^T + b, from this rank's columns of x."""
        values = self.store.values
        return _JoiningLinear.apply(x, values[name], values[name + "_bias"], self, name)

    def _norm(self, x: Tensor, scale: str, shift: str) -> Tensor:
        return _Norm.apply(
            x, self.store.values[scale], self.store.values[shift], self, scale, shift
        )

    def _add(self, x_NTH: Tensor, name: str) -> Tensor:
        return _Add.apply(x_NTH, self.store.values[name], self, name)

    def later(self, work: Work) -> None:
        """Do a weight's gradient now, or when the W pass comes."""
        if self.waiting is None:
            work()
        else:
            self.waiting.append(work)


class _Linear(torch.autograd.Function):
    """x W^T + b. dW goes straight into the store, in its type, when the stage says."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stage: Stage, name: str
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.weight, ctx.stage, ctx.name = weight, stage, name
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        _add_weight_gradients(ctx, grad)
        return ctx.stage.team.sum(grad @ ctx.weight), None, None, None, None


class _JoiningLinear(torch.autograd.Function):
    """The same where x and W are cut along what is summed over: the team adds its parts up."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stage: Stage, name: str
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.weight, ctx.stage, ctx.name = weight, stage, name
        if stage.team.size == 1:
            return F.linear(x, weight, bias)
        return stage.team.sum(F.linear(x, weight)).add_(bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        _add_weight_gradients(ctx, grad)
        return grad @ ctx.weight, None, None, None, None


def _add_weight_gradients(ctx: Any, grad: Tensor) -> None:
    (x,) = ctx.saved_tensors
    gradients, name = ctx.stage.store.gradients, ctx.name

    def work() -> None:
        grad_KO, x_KI = grad.flatten(0, -2), x.flatten(0, -2)
        add_product(gradients[name], grad_KO, x_KI)
        gradients[name + "_bias"] += grad_KO.sum(0)

    ctx.stage.later(work)


class _Norm(torch.autograd.Function):
    """Layer norm; the gradients of scale and shift go into the store at once (they are small)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, stage: Stage, *names: str
    ) -> Tensor:
        y, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], scale, shift, 1e-5)
        ctx.save_for_backward(x, mean, rstd)
        ctx.scale, ctx.shift, ctx.stage, ctx.names = scale, shift, stage, names
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, mean, rstd = ctx.saved_tensors
        dx, dscale, dshift = torch.ops.aten.native_layer_norm_backward(
            grad, x, x.shape[-1:], mean, rstd, ctx.scale, ctx.shift, [True, True, True]
        )
        gradients = ctx.stage.store.gradients
        gradients[ctx.names[0]] += dscale
        gradients[ctx.names[1]] += dshift
        return dx, None, None, None, None, None


class _Add(torch.autograd.Function):
    """x + position."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, position: Tensor, stage: Stage, name: str) -> Tensor:
        ctx.stage, ctx.name = stage, name
        return x + position[: x.shape[1]]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        gradient = ctx.stage.store.gradients[ctx.name]
        gradient[: grad.shape[1]] += grad.sum(0)
        return grad, None, None, None
