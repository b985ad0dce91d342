"""One shard of one pipeline stage of a BERT-like classifier (tensor parallelism as in Megatron-LM).

Heads and the inner layer's units are split over the shards; two sums per layer bring them together,
so every shard ends with the same activations and hands them to its peer in the next stage.
Dimensions: B batch, N tokens, H hidden, A heads of this shard, D per head.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from beta.inputs.shapes import Shape
from beta.run.weights import Bert, Weights, open_model
from common.errors import InputError

Sum = Callable[[Tensor], Tensor]
"""Adds up what the shards of a stage hold."""


class Shard(NamedTuple):
    """Which part of which stage."""

    stage: int
    stages: int
    rank: int
    op: int

    def layers(self, count: int) -> range:
        """Return the stage's layers of `count`, spread evenly, the first stages fuller."""
        if count < self.stages:
            raise InputError(f"{count} layers cannot make {self.stages} pipeline stages")
        sizes = [count // self.stages + (k < count % self.stages) for k in range(self.stages)]
        first = sum(sizes[: self.stage])
        return range(first, first + sizes[self.stage])


class Place(NamedTuple):
    """Where tensors lie."""

    device: torch.device
    dtype: torch.dtype


CPU = Place(torch.device("cpu"), torch.float32)


def _alone(x: Tensor) -> Tensor:
    return x


class Layer:
    """A transformer layer's shard."""

    def __init__(
        self, bert: Bert, weights: Weights, number: int, shard: Shard, place: Place, total: Sum
    ) -> None:
        if bert.num_attention_heads % shard.op or bert.intermediate_size % shard.op:
            raise InputError(
                f"op {shard.op} does not divide {bert.num_attention_heads} heads and"
                f" {bert.intermediate_size} inner units"
            )
        self.number = number
        self.head_size = bert.hidden_size // bert.num_attention_heads
        self.eps, self.total = bert.layer_norm_eps, total
        self.activation = _activation(bert.hidden_act)
        mine = _part(bert.hidden_size, shard)
        inner = _part(bert.intermediate_size, shard)

        def get(name: str) -> Tensor:
            return weights.tensor(f"bert.encoder.layer.{number}.{name}")

        def put(x: Tensor) -> Tensor:
            return x.to(place.device, place.dtype).contiguous()

        attention = [f"attention.self.{name}" for name in ("query", "key", "value")]
        self.qkv_w = put(torch.cat([get(f"{name}.weight")[mine] for name in attention]))
        self.qkv_b = put(torch.cat([get(f"{name}.bias")[mine] for name in attention]))
        self.out_w = put(get("attention.output.dense.weight")[:, mine])
        self.up_w = put(get("intermediate.dense.weight")[inner])
        self.up_b = put(get("intermediate.dense.bias")[inner])
        self.down_w = put(get("output.dense.weight")[:, inner])
        self.out_b, self.down_b = (
            put(get(f"{name}.dense.bias")) for name in ("attention.output", "output")
        )
        self.norms = [
            tuple(put(get(f"{name}.LayerNorm.{kind}")) for kind in ("weight", "bias"))
            for name in ("attention.output", "output")
        ]

    def __call__(self, x_BNH: Tensor, mask_B11N: Tensor | None = None) -> Tensor:
        """Return the layer's output, the same on every shard; attention only sees the mask."""
        batch, tokens, _ = x_BNH.shape
        qkv = functional.linear(x_BNH, self.qkv_w, self.qkv_b)
        q_BAND, k_BAND, v_BAND = (
            part.view(batch, tokens, -1, self.head_size).transpose(1, 2)
            for part in qkv.chunk(3, dim=-1)
        )
        mixed = functional.scaled_dot_product_attention(q_BAND, k_BAND, v_BAND, mask_B11N)
        joined = mixed.transpose(1, 2).reshape(batch, tokens, -1)
        x_BNH = self._add(x_BNH, functional.linear(joined, self.out_w), self.out_b, 0)
        inner = self.activation(functional.linear(x_BNH, self.up_w, self.up_b))
        return self._add(x_BNH, functional.linear(inner, self.down_w), self.down_b, 1)

    def tensors(self) -> list[Tensor]:
        """Return the weights."""
        matrices = [self.qkv_w, self.qkv_b, self.out_w, self.out_b, self.up_w, self.up_b]
        norms = [tensor for norm in self.norms for tensor in norm]
        return [*matrices, self.down_w, self.down_b, *norms]

    def _add(self, x_BNH: Tensor, part_BNH: Tensor, bias: Tensor, norm: int) -> Tensor:
        weight, shift = self.norms[norm]
        summed = x_BNH + self.total(part_BNH) + bias
        return functional.layer_norm(summed, summed.shape[-1:], weight, shift, self.eps)


class BertStage:
    """One stage: the embedding on the first, some layers, pooler and classifier on the last."""

    def __init__(
        self,
        bert: Bert,
        weights: Weights,
        shard: Shard,
        place: Place = CPU,
        total: Sum = _alone,
    ) -> None:
        def put(name: str) -> Tensor:
            return weights.tensor(name).to(place.device, place.dtype)

        self.bert, self.place = bert, place
        self.first, self.last = shard.stage == 0, shard.stage == shard.stages - 1
        numbers = shard.layers(bert.num_hidden_layers)
        self.layers = [Layer(bert, weights, n, shard, place, total) for n in numbers]
        if self.first:
            names = ("word_embeddings", "position_embeddings", "token_type_embeddings")
            self.tables = [put(f"bert.embeddings.{name}.weight") for name in names]
            self.norm = [put(f"bert.embeddings.LayerNorm.{k}") for k in ("weight", "bias")]
        if self.last:
            self.pool = [put(f"bert.pooler.dense.{k}") for k in ("weight", "bias")]
            self.head = [put(f"classifier.{k}") for k in ("weight", "bias")]

    def weight_bytes(self) -> int:
        """Return what the weights take."""
        held = [tensor for layer in self.layers for tensor in layer.tensors()]
        held += [*self.tables, *self.norm] if self.first else []
        held += [*self.pool, *self.head] if self.last else []
        return sum(tensor.numel() * tensor.element_size() for tensor in held)

    def activations(self, batch: int, tokens: int) -> Tensor:
        """Return a buffer for what the stage before hands over."""
        size = (batch, tokens, self.bert.hidden_size)
        return torch.empty(size, device=self.place.device, dtype=self.place.dtype)

    def __call__(self, x: Tensor, lengths: Sequence[int] = ()) -> Tensor:
        """Map token ids (first stage) or activations to activations, or (last) to logits.

        `lengths` are the requests' tokens where they are not all of the same length.
        """
        x_BNH = self._embed(x) if self.first else x
        mask = mask_of(lengths, x.device)
        for layer in self.layers:
            x_BNH = layer(x_BNH, None if mask is None else mask[:, None, None])
        if not self.last:
            return x_BNH
        pool = torch.tanh if self.bert.pooling == "tanh" else torch.relu
        pooled_BH = pool(functional.linear(x_BNH[:, 0], *self.pool))
        return functional.linear(pooled_BH, *self.head)

    def _embed(self, ids_BN: Tensor) -> Tensor:
        words, positions, kinds = self.tables
        at = positions_of(ids_BN, self.bert.first_position)
        x_BNH = functional.embedding(ids_BN, words) + kinds[0] + functional.embedding(at, positions)
        weight, shift = self.norm
        eps = self.bert.layer_norm_eps
        return functional.layer_norm(x_BNH, x_BNH.shape[-1:], weight, shift, eps)


class WholeModel:
    """Any sequence classifier of transformers, from a folder, on one device."""

    first = last = True

    def __init__(self, folder: Path, place: Place = CPU) -> None:
        from transformers import AutoModelForSequenceClassification

        found, loading = AutoModelForSequenceClassification.from_pretrained(
            folder, local_files_only=True, output_loading_info=True
        )
        if loading["missing_keys"]:
            missing = sorted(loading["missing_keys"])[0]
            raise InputError(f"{folder}: no tensor {missing}; it would be random")
        self.model = found.to(place.device, place.dtype).eval()
        # Without one, models that look for the last token take no batch.
        self.alone = found.config.pad_token_id is None

    def weight_bytes(self) -> int:
        """Return what the weights take."""
        return sum(p.numel() * p.element_size() for p in self.model.parameters())

    def activations(self, batch: int, tokens: int) -> Tensor:
        """Never called: there is no stage before."""
        raise AssertionError("a whole model has one stage")

    def __call__(self, ids_BN: Tensor, lengths: Sequence[int] = ()) -> Tensor:
        """Map token ids to logits; requests of unlike lengths one after the other.

        What a model does with padding is its own: some take it by its id, some by its place.
        """
        if len(ids_BN) > 1 and (mask_of(lengths, ids_BN.device) is not None or self.alone):
            ends = lengths or [ids_BN.shape[1]] * len(ids_BN)
            each = [self(ids_BN[i : i + 1, :end]) for i, end in enumerate(ends)]
            return torch.cat(each)
        return self.model(input_ids=ids_BN).logits


Stage = BertStage | WholeModel


def make_stage(
    shape: Shape, seed: int, shard: Shard, place: Place = CPU, total: Sum = _alone
) -> Stage:
    """Return a shard of a model's stage; models other than BERT come as a whole only."""
    bert, weights = open_model(shape, seed)
    if bert is not None:
        return BertStage(bert, weights, shard, place, total)
    if (shard.stages, shard.op) != (1, 1):
        raise InputError(
            f"{shape.folder}: only BERT and its like can be split; place this model with op 1, pp 1"
        )
    return WholeModel(Path(shape.folder), place)


def positions_of(ids_BN: Tensor, first: int) -> Tensor:
    """Return each token's position, counted from `first`.

    Where that is above 0, tokens of the padding's id, one less, are not counted and are there.
    """
    if not first:
        return torch.arange(ids_BN.shape[1], device=ids_BN.device).expand_as(ids_BN)
    counted_BN = (ids_BN != first - 1).long()
    return counted_BN.cumsum(1) * counted_BN + first - 1


def mask_of(lengths: Sequence[int], device: torch.device) -> Tensor | None:
    """Return which positions hold tokens, (batch, longest); None where all are as long."""
    if len({*lengths}) < 2:
        return None
    positions = torch.arange(max(lengths), device=device)
    return positions < torch.tensor(lengths, device=device)[:, None]


def _part(size: int, shard: Shard) -> slice:
    each = size // shard.op
    return slice(shard.rank * each, (shard.rank + 1) * each)


def _activation(name: str) -> Callable[[Tensor], Tensor]:
    if name == "relu":
        return torch.relu
    tanh = name in ("gelu_new", "gelu_pytorch_tanh")
    return lambda x: functional.gelu(x, approximate="tanh" if tanh else "none")
