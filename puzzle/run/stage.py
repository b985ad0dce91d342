"""One stage of a LLaMA: its layers on a dictionary of weights, wherever those come from."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from puzzle.inputs.layout import stage_layers
from puzzle.inputs.model import EMBEDDING, FINAL_NORM, LM_HEAD, SCORE, Llama, Role
from puzzle.run.groups import Groups
from puzzle.run.layers import (
    Angles,
    Cache,
    attention,
    attention_mask,
    embed,
    entropies,
    feed_forward,
    log_probs,
    rms_norm,
    rotary_angles,
    to_slices,
    wide,
)
from puzzle.run.sample import PLAIN, Drawn


class Tokens(NamedTuple):
    """A micro-batch: ids N x T, which are real, N x S (all up to the last id), positions N x T."""

    ids: Tensor
    valid: Tensor
    positions: Tensor


def whole_tokens(ids: Tensor, valid: Tensor) -> Tokens:
    """Return sequences with the positions of left-padded text: real tokens count from 0."""
    return Tokens(ids, valid, (valid.long().cumsum(1) - 1).clamp(min=0))


class Stage:
    """The part of a model that a place holds; `recompute` as `choice.recompute`."""

    def __init__(
        self,
        model: Llama,
        role: Role,
        groups: Groups,
        weights: dict[str, Tensor],
        *,
        recompute: bool = False,
    ) -> None:
        layout, place = groups.layout, groups.place
        self.model, self.role, self.weights, self.group = model, role, weights, groups.tensor
        self.layers = stage_layers(model.layers, layout.pipeline, place.stage)
        self.first, self.last = groups.first, groups.last
        self.recompute = recompute
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
        angles = rotary_angles(tokens.positions, self.model, x.dtype)
        if mask is None:
            mask = attention_mask(tokens.valid, tokens.ids.shape[1], x.dtype)
        again = self.recompute and torch.is_grad_enabled()
        for layer in self.layers:
            x = (
                self._again(layer, x, angles, mask)
                if again
                else self._layer(layer, x, angles, mask, cache)
            )
        return rms_norm(x, self.weights[FINAL_NORM], self.model.norm_epsilon) if self.last else x

    def _again(self, layer: int, x: Tensor, angles: Angles, mask: Tensor) -> Tensor:
        """Return a layer's output, of which the backward pass computes the inner values anew.

        Nothing is drawn in a layer, so no generator's state has to be kept.
        """
        found = checkpoint(
            self._layer, layer, x, angles, mask, use_reentrant=False, preserve_rng_state=False
        )
        assert isinstance(found, Tensor)
        return found

    def _layer(
        self, layer: int, x: Tensor, angles: Angles, mask: Tensor, cache: Cache | None = None
    ) -> Tensor:
        """Return a layer's output N x T x H."""
        w, epsilon, name = self.weights, self.model.norm_epsilon, f"model.layers.{layer}"
        y = rms_norm(x, w[f"{name}.input_layernorm.weight"], epsilon)
        x = x + attention(y, w, layer, self.model, angles, mask, cache, self.group)
        y = rms_norm(x, w[f"{name}.post_attention_layernorm.weight"], epsilon)
        return x + feed_forward(y, w, layer, self.group)

    def logits(self, x_NTH: Tensor) -> Tensor:
        """Return this slice's logits N x T x V of the last stage's hidden states."""
        return functional.linear(to_slices(x_NTH, self.group), self.weights[LM_HEAD])

    def next_logits(self, x_NTH: Tensor, drawn: Drawn) -> Tensor:
        """Return this slice's logits of the next tokens as they are drawn from, N x (T - 1) x V."""
        return drawn.shaped(self.logits(x_NTH[:, :-1]), self.token)

    def next_log_probs(self, x_NTH: Tensor, ids: Tensor, drawn: Drawn = PLAIN) -> Tensor:
        """Return each next token's log-probability, N x (T - 1), wide."""
        return log_probs(self.next_logits(x_NTH, drawn), ids[:, 1:], self.token, self.group)

    def next_entropies(self, x_NTH: Tensor, ids: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities, and the entropy of each next token, N x (T - 1), nats."""
        logits = self.next_logits(x_NTH, drawn)
        chosen = log_probs(logits, ids[:, 1:], self.token, self.group)
        return chosen, entropies(logits, self.group)

    def values(self, x_NTH: Tensor) -> Tensor:
        """Return the critic's value after each token, N x T, wide."""
        return wide(functional.linear(x_NTH, self.weights[SCORE])[..., 0])

    def new_cache(self, sequences: int, length: int, dtype: torch.dtype) -> Cache:
        """Return an empty cache for a micro-batch."""
        like = next(iter(self.weights.values()))
        shape = (sequences, self.key_heads, length, self.model.head_size)
        return Cache(self.layers, shape, like.new_empty((), dtype=dtype))
