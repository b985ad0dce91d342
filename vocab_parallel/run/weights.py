"""A rank's weights: their first values, their copies for computing, and their gradients.

Every weight has a name and first values that depend on name and seed alone, so all layouts begin
with the same model. Vocabulary matrices are drawn in blocks of rows: a shard draws only its own.
"""

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vocab_parallel.inputs.model import Model
from vocab_parallel.run.tensor import ALONE, Cut, Team, own_part

_STD = 0.02
_BLOCK_ROWS = 1024
_ALIGNED = 64
"""Numbers: where a gradient begins in the packed ones, so that products into it are fast."""

EMBEDDING, OUTPUT, POSITION = "embedding", "output", "position"


class Weight(NamedTuple):
    """One weight: its name, shape and first values; of a vocabulary matrix the rows from `first`.

    `real` counts the rows that are no padding (-1: all of them). `cut`: the part of it that this
    rank holds, of which `shape` is; None where every rank of the stage holds it whole.
    """

    name: str
    shape: tuple[int, ...]
    start: Literal["normal", "zeros", "ones"] = "normal"
    first: int = 0
    real: int = -1
    cut: Cut | None = None

    @property
    def is_split(self) -> bool:
        """Whether other ranks of the same pipeline position hold other parts of it."""
        return self.real >= 0 or (self.cut is not None and self.cut.size > 1)


def layer_weights(number: int, model: Model, team: Team = ALONE) -> list[Weight]:
    """Return this rank's weights of transformer layer `number`."""
    at, place = f"layer{number}.", {"place": team.place, "size": team.size}
    rows, columns, hidden = Cut(0, **place), Cut(1, **place), model.hidden
    queries = model.heads * model.head // team.size
    keys, narrow = model.groups * model.head // team.size, model.wide // team.size
    inner = _attention_matrices(at, model, queries, keys, place)
    found = [*norm_weights(model, at)]
    for matrix in inner:
        found += [matrix, *_bias(matrix, model, ("all", "qkv"))]
    merge = Weight(at + "merge", (hidden, queries), cut=columns)
    found += [merge, *_bias(merge, model, ("all",)), *norm_weights(model, at + "mlp_")]
    for name in ("up", "gate") if model.gated else ("up",):
        matrix = Weight(at + name, (narrow, hidden), cut=rows)
        found += [matrix, *_bias(matrix, model, ("all",))]
    down = Weight(at + "down", (hidden, narrow), cut=columns)
    found += [down, *_bias(down, model, ("all",))]
    for behind in ("attended_", "made_") if model.norms == 4 else ():
        found += norm_weights(model, at + behind)
    for name in ("query_scale", "key_scale") if model.qk_norm else ():
        found.append(Weight(at + name, (model.head,), _scale_start(model)))
    return found


def _attention_matrices(
    at: str, model: Model, queries: int, keys: int, place: dict[str, int]
) -> list[Weight]:
    """Return query, key and value in one matrix where they are of one size, else in two."""
    if model.groups == model.heads:
        return [Weight(at + "qkv", (3 * queries, model.hidden), cut=Cut(0, 3, **place))]
    return [
        Weight(at + "query", (queries, model.hidden), cut=Cut(0, **place)),
        Weight(at + "kv", (2 * keys, model.hidden), cut=Cut(0, 2, **place)),
    ]


def _bias(matrix: Weight, model: Model, kinds: tuple[str, ...]) -> list[Weight]:
    """Return a matrix' bias, if the model has it; behind a sum every rank holds it whole."""
    if model.biases not in kinds:
        return []
    cut = matrix.cut if matrix.cut and matrix.cut.axis == 0 else None
    return [Weight(matrix.name + "_bias", matrix.shape[:1], "zeros", cut=cut)]


def norm_weights(model: Model, at: str) -> list[Weight]:
    """Return the weights of a norm of the hidden state."""
    scale = Weight(at + "scale", (model.hidden,), _scale_start(model))
    shift = Weight(at + "shift", (model.hidden,), "zeros")
    return [scale, shift] if model.norm == "layer" else [scale]


def _scale_start(model: Model) -> Literal["zeros", "ones"]:
    return "zeros" if model.norm_offset else "ones"


def initial(weight: Weight, seed: int) -> Tensor:
    """Return a weight's first values, float32 on the CPU; padded rows are 0."""
    if weight.start != "normal":
        return torch.zeros(weight.shape) if weight.start == "zeros" else torch.ones(weight.shape)
    if weight.real < 0:
        cut = weight.cut or Cut(0)
        shape = tuple(n * cut.size if i == cut.axis else n for i, n in enumerate(weight.shape))
        return own_part(_normal(shape, (seed, *weight.name.encode())), cut).contiguous()
    rows, width = weight.shape
    values = torch.zeros(rows, width)
    last = weight.first + weight.real
    for block in range(weight.first // _BLOCK_ROWS, -(-last // _BLOCK_ROWS)):
        start = block * _BLOCK_ROWS
        drawn = _normal((_BLOCK_ROWS, width), (seed, block, *weight.name.encode()))
        begin, end = max(start, weight.first), min(start + _BLOCK_ROWS, last)
        values[begin - weight.first : end - weight.first] = drawn[begin - start : end - start]
    return values


def _normal(shape: tuple[int, ...], key: tuple[int, ...]) -> Tensor:
    state = np.random.SeedSequence(key).generate_state(1)[0]
    generator = torch.Generator().manual_seed(int(state))
    return torch.empty(shape).normal_(0.0, _STD, generator=generator)


class Store:
    """A rank's weights by name: `values` to compute with, `main` to update, `gradients` to add to.

    With bfloat16 the last two are float32; otherwise `values` and `main` are the same tensors.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device, seed: int) -> None:
        self.dtype, self.device, self.seed = dtype, device, seed
        self.main_type = torch.float32 if dtype == torch.bfloat16 else dtype
        self.weights: dict[str, Weight] = {}
        self.values: dict[str, Tensor] = {}
        self.main: dict[str, Tensor] = {}
        self.gradients: dict[str, Tensor] = {}

    def add(self, weight: Weight) -> Tensor:
        """Make a weight, unless it is there (tied matrices), and return it to compute with."""
        if weight.name not in self.weights:
            main = initial(weight, self.seed).to(self.device, self.main_type)
            self.weights[weight.name], self.main[weight.name] = weight, main
            self.values[weight.name] = main.to(self.dtype)
            self.gradients[weight.name] = torch.zeros_like(main)
        return self.values[weight.name]

    def pack(self) -> None:
        """Put all gradients, 0, behind each other into `flat`, so that few calls sum and scale."""
        starts = [0]
        for gradient in self.gradients.values():
            starts.append(starts[-1] + -(-gradient.numel() // _ALIGNED) * _ALIGNED)
        self.flat = torch.zeros(starts[-1], dtype=self.main_type, device=self.device)
        for start, (name, gradient) in zip(starts, self.gradients.items(), strict=False):
            self.gradients[name] = self.flat[start : start + gradient.numel()].view_as(gradient)

    def clear_gradients(self) -> None:
        """Set all gradients of a packed store to 0."""
        self.flat.zero_()

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy updated main weights to those that are computed with."""
        for name, value in self.values.items():
            if value is not self.main[name]:
                value.copy_(self.main[name])
