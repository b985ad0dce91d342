"""A GPT whose layers are the plan's: embedding, blocks, head, each a slice for one rank.

Layer 0 embeds tokens and positions; layers 1 .. L-2 are pre-norm blocks of attention and a
4x wide MLP; layer L-1 is the final norm, an output matrix of its own and the cross entropy.

Shape suffixes: N samples, T tokens, H hidden, A heads of this rank, D head width,
V this rank's part of the vocabulary.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  the name the whole field knows
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from metis.inputs.model import Model
from metis.inputs.savings import Recompute
from metis.run.parallel import TensorGroup
from metis.run.weights import weights

_STD = 0.02


class Place(NamedTuple):
    """Where a layer's slice lives, and the seed of the full weights it is cut from."""

    tensor: TensorGroup
    seed: int
    dtype: torch.dtype
    device: torch.device
    recompute: Recompute = "none"
    """What blocks compute again in their backward pass."""


def initial(model: Model, layer: int, name: str, seed: int) -> Tensor:
    """Return a full weight's first values, float32 on the CPU: the same on every layout."""
    wanted = weights(model, layer)
    shape, _, start = wanted[name]
    if start != "normal":
        return torch.zeros(shape) if start == "zeros" else torch.ones(shape)
    key = np.random.SeedSequence((seed, layer, list(wanted).index(name)))
    generator = torch.Generator().manual_seed(int(key.generate_state(1)[0]))
    return torch.empty(shape).normal_(0.0, _STD, generator=generator)


def build(model: Model, layer: int, place: Place) -> nn.Module:
    """Return this rank's slice of a layer."""
    if layer == 0:
        return Embedding(model, layer, place)
    return (Head if layer == model.layers - 1 else Block)(model, layer, place)


class _Slice(nn.Module):
    """Holds this rank's slice of each of the layer's weights as a parameter of that name."""

    def __init__(self, model: Model, layer: int, place: Place) -> None:
        super().__init__()
        self.model, self.layer, self.tensor = model, layer, place.tensor
        self.recompute = place.recompute
        for name, weight in weights(model, layer).items():
            part = place.tensor.slice(initial(model, layer, name, place.seed), weight.split)
            own = part.to(place.device, place.dtype, copy=True).contiguous()
            self.register_parameter(name, nn.Parameter(own))


class Embedding(_Slice):
    """Token plus position embedding; each rank knows its part of the vocabulary."""

    token: Tensor
    position: Tensor

    def forward(self, tokens_NT: Tensor) -> Tensor:
        """Return x_NTH."""
        ids = self.tensor.share(self.model.vocabulary)
        row_NT = tokens_NT - ids.start
        mine_NT1 = ((row_NT >= 0) & (row_NT < len(ids)))[..., None]
        x_NTH = F.embedding(row_NT.clamp(0, len(ids) - 1), self.token) * mine_NT1
        return self.tensor.total(x_NTH) + self.position[: tokens_NT.shape[1]]


class Block(_Slice):
    """Causal attention over this rank's heads, then its columns of the MLP."""

    scale: Tensor
    shift: Tensor
    qkv: Tensor
    qkv_bias: Tensor
    merge: Tensor
    merge_bias: Tensor
    mlp_scale: Tensor
    mlp_shift: Tensor
    up: Tensor
    up_bias: Tensor
    down: Tensor
    down_bias: Tensor

    def forward(self, x_NTH: Tensor) -> Tensor:
        """Return x_NTH; what is to be recomputed keeps nothing but its input."""
        return _again(self._whole, x_NTH) if self.recompute == "full" else self._whole(x_NTH)

    def _whole(self, x_NTH: Tensor) -> Tensor:
        x_NTH = x_NTH + self.attend(_norm(x_NTH, self.scale, self.shift))
        mlp_NTH = _norm(x_NTH, self.mlp_scale, self.mlp_shift)
        again = self.recompute == "selective"
        return x_NTH + (_again(self.think, mlp_NTH) if again else self.think(mlp_NTH))

    def attend(self, x_NTH: Tensor) -> Tensor:
        """Return the attention's part of the residual stream."""
        weight, bias = self.qkv.flatten(0, 2), self.qkv_bias.flatten()
        packed = F.linear(self.tensor.spread(x_NTH), weight, bias)
        packed = packed.unflatten(-1, self.qkv.shape[:3])
        q_NATD, k_NATD, v_NATD = (part.transpose(1, 2) for part in packed.unbind(2))
        out_NATD = F.scaled_dot_product_attention(q_NATD, k_NATD, v_NATD, is_causal=True)
        merged = F.linear(out_NATD.transpose(1, 2).flatten(2), self.merge.flatten(1))
        return self.tensor.total(merged) + self.merge_bias

    def think(self, x_NTH: Tensor) -> Tensor:
        """Return the MLP's part of the residual stream."""
        wide = F.gelu(F.linear(self.tensor.spread(x_NTH), self.up, self.up_bias))
        return self.tensor.total(F.linear(wide, self.down)) + self.down_bias


class Head(_Slice):
    """Final norm, output matrix and cross entropy over this rank's part of the vocabulary."""

    scale: Tensor
    shift: Tensor
    output: Tensor

    def forward(self, x_NTH: Tensor, labels_NT: Tensor) -> Tensor:
        """Return loss_NT, each token's cross entropy in nat."""
        x_NTH = self.tensor.spread(_norm(x_NTH, self.scale, self.shift))
        logits_NTV = F.linear(x_NTH, self.output)
        return self.tensor.cross_entropy(logits_NTV, labels_NT, self.model.vocabulary)


def _again(part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Run a part of the layer that is run again in the backward pass; it draws nothing."""
    y: Tensor = checkpoint(part, x, use_reentrant=False, preserve_rng_state=False)  # pyright: ignore
    return y


def _norm(x_NTH: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return F.layer_norm(x_NTH, x_NTH.shape[-1:], scale, shift)
