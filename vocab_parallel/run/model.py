"""A pipeline stage: pre-norm transformer layers whose weight gradients can wait for a W pass.

Shape suffixes: N samples, T tokens, H hidden, A heads, D head width; K all but the last dimension.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vocab_parallel.inputs.model import Model
from vocab_parallel.run.attention import attend
from vocab_parallel.run.elementwise import Gated, Rotated, bent
from vocab_parallel.run.linear import Add, JoiningLinear, Linear
from vocab_parallel.run.norms import LayerNorm, RootMeanSquareNorm
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
        again: Sequence[range] = (),
    ) -> None:
        """Make the weights; B computes the groups `again` of the layers once more."""
        self.again = again
        self.model, self.store, self.layers, self.team = model, store, layers, team
        self.first, self.last = first, last
        self.waiting: list[Work] | None = None
        for number in layers:
            for weight in layer_weights(number, model, team):
                store.add(weight)
        if first and model.positions == "learned":
            store.add(Weight(POSITION, (model.sequence, model.hidden)))
        for weight in norm_weights(model, "norm_") if last else ():
            store.add(weight)

    def forward(self, x_NTH: Tensor) -> Tensor:
        """Return the stage's output; the last stage's is normed (the paper's X)."""
        if self.first and self.model.scaled_embedding:
            x_NTH = x_NTH * torch.tensor(self.model.hidden**0.5, dtype=x_NTH.dtype)
        if self.first and self.model.positions == "learned":
            x_NTH = self._add(x_NTH, POSITION)
        done = self.layers.start
        for group in self.again:
            x_NTH = self._through(x_NTH, range(done, group.start))
            x_NTH = checkpoint(
                self._through, x_NTH, group, use_reentrant=False, preserve_rng_state=False
            )
            done = group.stop
        x_NTH = self._through(x_NTH, range(done, self.layers.stop))
        return self._norm(x_NTH, "norm_") if self.last else x_NTH

    def backward(self, y_NTH: Tensor, grad_NTH: Tensor, *, keep_work: bool) -> list[Work]:
        """Run the backward pass; with `keep_work` return the weight gradients as work to do."""
        self.waiting = [] if keep_work else None
        torch.autograd.backward(y_NTH, grad_NTH)
        work, self.waiting = self.waiting or [], None
        return work

    def _through(self, x_NTH: Tensor, layers: range) -> Tensor:
        for number in layers:
            x_NTH = self._layer(x_NTH, number)
        return x_NTH

    def _layer(self, x_NTH: Tensor, number: int) -> Tensor:
        at, behind = f"layer{number}.", self.model.norms == 4
        made_NTH = self._attend(self._norm(x_NTH, at), number)
        x_NTH = x_NTH + (self._norm(made_NTH, at + "attended_") if behind else made_NTH)
        made_NTH = self._mlp(self._norm(x_NTH, at + "mlp_"), at)
        return x_NTH + (self._norm(made_NTH, at + "made_") if behind else made_NTH)

    def _mlp(self, x_NTH: Tensor, at: str) -> Tensor:
        up, activation = self._linear(x_NTH, at + "up"), self.model.activation
        if self.model.gated:
            wide = Gated.apply(up, self._linear(x_NTH, at + "gate"), activation)
        else:
            wide = bent(up, activation)
        return self._joining(wide, at + "down")

    def _attend(self, x_NTH: Tensor, number: int) -> Tensor:
        at, model = f"layer{number}.", self.model
        q_NATD, k_NATD, v_NATD = self._heads(x_NTH, at)
        if model.qk_norm:
            q_NATD = self._norm_heads(q_NATD, at + "query_scale")
            k_NATD = self._norm_heads(k_NATD, at + "key_scale")
        if model.positions == "rope":
            q_NATD, k_NATD = (Rotated.apply(part, model, number) for part in (q_NATD, k_NATD))
            if not model.qk_norm:  # else its input stays, of which the values are a part
                v_NATD = v_NATD.clone()
        out_NATD = attend(q_NATD, k_NATD, v_NATD, model, number)
        return self._joining(out_NATD.transpose(1, 2).flatten(2), at + "merge")

    def _heads(self, x_NTH: Tensor, at: str) -> list[Tensor]:
        """Return queries, keys and values; in one product where they have equally many heads."""
        model, size = self.model, self.team.size
        if model.groups == model.heads:
            packed = self._linear(x_NTH, at + "qkv").unflatten(-1, (3, model.heads // size, -1))
            return [part.transpose(1, 2) for part in packed.unbind(2)]
        packed = self._linear(x_NTH, at + "kv").unflatten(-1, (2, model.groups // size, -1))
        q_NTAD = self._linear(x_NTH, at + "query").unflatten(-1, (model.heads // size, -1))
        return [part.transpose(1, 2) for part in (q_NTAD, *packed.unbind(2))]

    def _linear(self, x: Tensor, name: str) -> Tensor:
        """Return this rank's columns of x W^T + b, from the whole x."""
        values = self.store.values
        return Linear.apply(x, values[name], values.get(name + "_bias"), self, name)

    def _joining(self, x: Tensor, name: str) -> Tensor:
        """Return the whole x W^T + b, from this rank's columns of x."""
        values = self.store.values
        return JoiningLinear.apply(x, values[name], values.get(name + "_bias"), self, name)

    def _norm(self, x: Tensor, at: str) -> Tensor:
        values = self.store.values
        if self.model.norm == "rms":
            return RootMeanSquareNorm.apply(x, values[at + "scale"], self, at + "scale", False)
        scale, shift = at + "scale", at + "shift"
        return LayerNorm.apply(x, values[scale], values[shift], self, scale, shift)

    def _norm_heads(self, x: Tensor, name: str) -> Tensor:
        return RootMeanSquareNorm.apply(x, self.store.values[name], self, name, True)

    def _add(self, x_NTH: Tensor, name: str) -> Tensor:
        return Add.apply(x_NTH, self.store.values[name], self, name)

    def later(self, work: Work) -> None:
        """Do a weight's gradient now, or when the W pass comes."""
        if self.waiting is None:
            work()
        else:
            self.waiting.append(work)
