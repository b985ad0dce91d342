"""Bytes that a micro-batch keeps, or needs for a moment, on one device of this runtime."""

import numpy as np
from numpy.typing import NDArray

from puzzle.inputs.layout import Layout, layers_per_stage
from puzzle.inputs.model import Llama
from puzzle.inputs.precision import HALVES, Kinds
from puzzle.inputs.workload import Workload

Bytes = NDArray[np.float64]
"""By pipeline rank."""


def activations(
    model: Llama, layout: Layout, work: Workload, kinds: Kinds, *, recompute: bool = False
) -> Bytes:
    """Return what one micro-batch keeps for its backward pass, by stage.

    Of a layer that is recomputed, its input alone.
    """
    tokens, w = work.micro_batch * work.length, kinds.weight
    layers = np.array(layers_per_stage(model.layers, layout.pipeline), dtype=float)
    # Once a pass: cosines and sines, and the mask, dense.
    layer = w * model.hidden if recompute else token_layer(model, layout.tensor, kinds)
    found = layers * layer
    found += w * (2 * model.head_size + work.length)
    found[:-1] += w * model.hidden  # what is handed on
    if not recompute:
        found[1:] += w * model.hidden  # what came
    found[-1] += kinds.wide * (model.hidden + 1) + 2 * w * model.hidden  # the last norm
    return tokens * found


def token_layer(model: Llama, tensor: int, kinds: Kinds) -> float:
    """Return the bytes that a token keeps in one layer for the backward pass.

    Whole on every slice, of either norm: its input in float32 at least, the root, what is scaled,
    and the scaled. Cut: queries, keys and values for every query head, the sums of the softmax, the
    mixed values, and gate, silu, up and product (Korthikanti et al., MLSys 2023, has such a list
    for a GPT; attention here keeps no scores).
    """
    h, w = model.hidden, kinds.weight
    norm = kinds.wide * (h + 1) + 2 * w * h
    q = model.query_width
    cut = w * (4 * q + 4 * model.ffn) + kinds.wide * model.heads
    if model.qk_norm:  # over each head of queries and keys
        rows = q + model.key_width
        cut += kinds.wide * (rows + rows // model.head_size) + w * rows
    return 2 * norm + cut / tensor


def recomputed(model: Llama, layout: Layout, work: Workload, kinds: Kinds) -> float:
    """Return what one layer of a micro-batch has while its backward pass is under way."""
    tokens, w = work.micro_batch * work.length, kinds.weight
    return tokens * (token_layer(model, layout.tensor, kinds) + w * model.hidden)


def logits(model: Llama, layout: Layout, rows: int, length: int, kinds: Kinds) -> float:
    """Return the head's logits of a micro-batch, and the same in float32 with its softmax."""
    wide = kinds.wide
    own = kinds.weight if kinds.weight != wide else 0
    return float((own + 2 * wide) * rows * length * model.vocabulary) / layout.tensor


def cache(model: Llama, layout: Layout, work: Workload, kinds: Kinds = HALVES) -> float:
    """Return the bytes of keys and values of all sequences of a replica (section 2.6)."""
    local = work.local(layout.data)
    layers = layers_per_stage(model.layers, layout.pipeline)[0]
    numbers = 2.0 * local * work.length * layers * model.key_width / layout.tensor
    return kinds.weight * numbers


def passing(model: Llama, layout: Layout, rows: int, length: int, kinds: Kinds) -> float:
    """Return what a pass without gradients holds at once: one layer's states, and the mask."""
    one = 2 * model.hidden + (2 * model.query_width + 3 * model.ffn) / layout.tensor
    wide = kinds.wide
    return float(rows * length) * (kinds.weight * (one + length) + wide * model.hidden)
