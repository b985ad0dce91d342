"""One stage of a LLaMA: its layers on a dictionary of weights, wherever those come from."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from puzzle.inputs.layout import stage_layers
from puzzle.inputs.model import EMBEDDING, FINAL_NORM, LM_HEAD, SCORE, Llama, Role
from puzzle.run.groups import Groups
from puzzle.run.layers import (
    Cache,
    attention,
    attention_mask,
    embed,
    feed_forward,
    log_probs,
    rms_norm,
    rotary_angles,
    to_slices,
)


class Tokens(NamedTuple):
    """A micro-batch: ids N x T, which are real, N x S (all up to the last id), positions N x T."""

    ids: Tensor
    valid: Tensor
    positions: Tensor


def whole_tokens(ids: Tensor, valid: Tensor) -> Tokens:
    """Return sequences with the positions of left-padded text: real tokens count from 0."""
    return Tokens(ids, valid, (valid.long().cumsum(1) - 1).clamp(min=0))


class Stage:
    """The part of a model that a place holds."""

    def __init__(
        self, model: Llama, role: Role, groups: Groups, weights: dict[str, Tensor]
    ) -> None:
        layout, place = groups.layout, groups.place
        self.model, self.role, self.weights, self.group = model, role, weights, groups.tensor
        self.layers = stage_layers(model.layers, layout.pipeline, place.stage)
        self.first, self.last = groups.first, groups.last
        self.token = model.vocabulary // layout.tensor * place.slice
        """First token id of this slice of the vocabulary."""
        self.key_heads = model.key_heads // layout.tensor

    def forward(
        self,
        x: Tensor | None,
        tokens: Tokens,
        cache: Cache | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return hidden states N x T x H; the last stage's are normalised.

        `x` is None on the first stage, where the ids are looked up; `mask` in place of the one of
        tokens that follow each other.
        """
        if self.first:
            x = embed(tokens.ids, self.weights[EMBEDDING], self.token, self.group)
        assert x is not None
        size, base = self.model.head_size, self.model.rope_base
        angles = rotary_angles(tokens.positions, size, base, x.dtype)
        if mask is None:
            mask = attention_mask(tokens.valid, tokens.ids.shape[1], x.dtype)
        w, epsilon = self.weights, self.model.norm_epsilon
        for layer in self.layers:
            name = f"model.layers.{layer}"
            y = rms_norm(x, w[f"{name}.input_layernorm.weight"], epsilon)
            x = x + attention(y, w, layer, size, angles, mask, cache, self.group)
            y = rms_norm(x, w[f"{name}.post_attention_layernorm.weight"], epsilon)
            x = x + feed_forward(y, w, layer, self.group)
        return rms_norm(x, w[FINAL_NORM], epsilon) if self.last else x

    def logits(self, x_NTH: Tensor) -> Tensor:
        """Return this slice's logits N x T x V of the last stage's hidden states."""
        return functional.linear(to_slices(x_NTH, self.group), self.weights[LM_HEAD])

    def next_log_probs(self, x_NTH: Tensor, ids: Tensor) -> Tensor:
        """Return each next token's log-probability, N x (T - 1), float32."""
        logits = self.logits(x_NTH[:, :-1])
        return log_probs(logits, ids[:, 1:], self.token, self.group)

    def values(self, x_NTH: Tensor) -> Tensor:
        """Return the critic's value after each token, N x T, float32."""
        return functional.linear(x_NTH, self.weights[SCORE])[..., 0].float()

    def new_cache(self, sequences: int, length: int, dtype: torch.dtype) -> Cache:
        """Return an empty cache for a micro-batch."""
        like = next(iter(self.weights.values()))
        shape = (sequences, self.key_heads, length, self.model.head_size)
        return Cache(self.layers, shape, like.new_empty((), dtype=dtype))
