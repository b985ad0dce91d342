"""A decoder layer as bytes and arithmetic: what an analytic profile is made of.

It comes of a model's architecture (`common.model`) or of the few sizes of a `[model.shape]`. Helix
places layers as if they were equal, so that of unequal ones (experts in some only) memory counts
the largest and time the mean; `notes` say so.
"""

from collections.abc import Sequence

import msgspec

from common.architecture import Architecture, Matrix, sheet
from common.errors import InputError
from common.model import read

CONTEXT = 750  # tokens of context that a decode reads from the KV cache
HALF = 2  # bytes of a 16-bit value


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One of a model's equal layers; bytes, and FLOP of one token."""

    layers: int
    """How many the model has."""
    held_bytes: float
    """Its weights in memory, those of all experts with them."""
    dense_bytes: float
    """Weights that every batch reads."""
    expert_bytes: float = 0.0
    """Weights of all routed experts, of which a batch reads what its tokens choose."""
    chosen: float = 1.0
    """Share of the experts that one token chooses."""
    kv_bytes: float
    """Keys and values of one token in memory."""
    kv_read: float
    """Bytes that a decode reads for each token of its context."""
    linear_flop: float
    """One token in the linear maps."""
    attention_flop: float
    """One token that attends to one other."""
    hop_bytes: int
    """Activations of one token between two layers."""
    work_bytes: float
    """Activations of one token of a prompt at work inside the layer."""
    embedding_bytes: float = 0.0
    """What the machine with the first layer holds besides."""
    head_bytes: float = 0.0
    """What the machine with the last layer holds besides."""
    tied: bool = False
    """Embedding and head are one matrix, held once by a machine with all layers."""
    dtype: str = "bf16"
    """What the matrices are multiplied in."""
    notes: tuple[str, ...] = ()

    def read_bytes(self, tokens: int) -> float:
        """Return the bytes of weights that a batch of so many tokens reads.

        Experts are taken to be chosen evenly: one is left out by n tokens with (1 - chosen)^n.
        """
        return self.dense_bytes + self.expert_bytes * (1 - (1 - self.chosen) ** tokens)

    def end_bytes(self, held: int) -> float:
        """Return what a machine with so many layers keeps free for embedding and head.

        Which machine is first or last is not known before layers are placed: one that cannot be
        both keeps room for the larger of the two.
        """
        ends = self.embedding_bytes, self.head_bytes
        return max(ends) if held < self.layers or self.tied else sum(ends)


class Shape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of a decoder layer with a gated MLP; embedding and head are not counted."""

    hidden_size: int
    """Values of one token's activations."""
    intermediate_size: int
    """Width of the gated MLP."""
    heads: int
    """Attention heads."""
    kv_heads: int
    """Heads of keys and values; fewer than heads: grouped-query attention."""
    head_dim: int = 0
    """Values of a head; 0: hidden_size / heads, or as the catalogue's model of model.name has it
    whose other sizes these are."""
    value_bytes: int | float = 2
    """Bytes of a weight: 4, 2, 1, or 0.5 for 4 bits."""
    kv_value_bytes: int | float = 0
    """Bytes of an activation and of a key or value; 0: as of a weight, but 2 at least."""

    def __post_init__(self) -> None:
        """Refuse shapes that no model has."""
        for field in ("hidden_size", "intermediate_size", "heads", "kv_heads"):
            if getattr(self, field) < 1:
                raise InputError(f"model.{field} is {getattr(self, field)}, expected 1 or more")
        if not 0 < self.value_bytes <= 8 or not 0 <= self.kv_value_bytes <= 8 or self.head_dim < 0:
            raise InputError(
                f"model.shape: value_bytes {self.value_bytes:g}, kv_value_bytes"
                f" {self.kv_value_bytes:g} and head_dim {self.head_dim} have to be 0 to 8, 0 to 8"
                " and 0 or more, and a weight has bytes"
            )
        if (not self.head_dim and self.hidden_size % self.heads) or self.heads % self.kv_heads:
            raise InputError(
                f"model: hidden_size {self.hidden_size}, heads {self.heads} and kv_heads"
                f" {self.kv_heads} have to divide one another in that order, or give a head_dim"
            )

    @property
    def head_size(self) -> int:
        """Values of one head."""
        return self.head_dim or self.hidden_size // self.heads

    @property
    def kv_size(self) -> int:
        """Values that a token's keys (or values) have in one layer."""
        return self.head_size * self.kv_heads

    @property
    def parameters(self) -> int:
        """Parameters of one layer: attention's four projections and the gated MLP's three."""
        attention = 2 * self.hidden_size * (self.heads * self.head_size + self.kv_size)
        return attention + 3 * self.hidden_size * self.intermediate_size

    @property
    def layer_bytes(self) -> float:
        """Bytes of one layer's weights."""
        return self.parameters * self.value_bytes

    @property
    def cache_bytes(self) -> int | float:
        """Bytes of an activation, a key or a value."""
        return self.kv_value_bytes or max(HALF, self.value_bytes)

    @property
    def kv_bytes(self) -> float:
        """Bytes of one token's keys and values in one layer."""
        return 2 * self.kv_size * self.cache_bytes

    def named(self, name: str, layers: int) -> "Shape":
        """Return the shape with the head size of the catalogue's model that it is, if it is one."""
        known = sheet("catalogue")
        with_name = {key.lower(): key for key in known}
        if self.head_dim or name.lower() not in with_name:
            return self
        model = read(with_name[name.lower()])
        theirs = model.layers, model.hidden, model.mlp_width, model.heads, model.kv_heads
        ours = layers, self.hidden_size, self.intermediate_size, self.heads, self.kv_heads
        if ours != theirs or model.head_dim == self.head_size:
            return self
        return msgspec.structs.replace(self, head_dim=model.head_dim)

    def layer(self, layers: int) -> Layer:
        """Return the layer of a model that has so many of this shape."""
        widths = 4 * self.hidden_size + 3 * self.intermediate_size
        return Layer(
            layers=layers,
            held_bytes=self.layer_bytes,
            dense_bytes=self.layer_bytes,
            kv_bytes=self.kv_bytes,
            kv_read=self.kv_bytes,
            linear_flop=2 * self.parameters,
            attention_flop=4 * self.heads * self.head_size,
            hop_bytes=int(self.hidden_size * self.cache_bytes),
            work_bytes=widths * self.cache_bytes,
            dtype="bf16" if self.value_bytes <= HALF else "fp32",
            notes=("embedding and head are not counted: a [model.shape] does not have them",),
        )


def layer_of(model: Architecture) -> Layer:
    """Return a model's layer; InputError where the model does not decode."""
    if model.facts["encoder"]:
        raise InputError(f"model.config: {model.family} is an encoder, and helix serves decoders")
    parts, kv = model.weight_bytes(), model.kv_bytes()
    experts = [_expert_bytes(model, i) for i in range(model.layers)]
    wide = 4 if model.dtype == "fp32" else HALF
    width = max(model.mlp_width, model.active_experts * model.expert_width)
    embedding = parts.embedding + parts.positions
    return Layer(
        layers=model.layers,
        held_bytes=max(parts.layers),
        dense_bytes=_mean(parts.layers) - _mean(experts),
        expert_bytes=_mean(experts),
        chosen=model.active_experts / model.experts if model.experts else 1.0,
        kv_bytes=max(kv),
        kv_read=_mean(model.kv_bytes(CONTEXT)) / CONTEXT,
        linear_flop=_mean(model.linear_flop().layers),
        attention_flop=_mean(model.attention_flop(CONTEXT)) / CONTEXT,
        hop_bytes=wide * model.hidden,
        work_bytes=wide * (4 * model.hidden + 3 * width),
        embedding_bytes=embedding,
        head_bytes=parts.final + (parts.embedding if model.tied else parts.head),
        tied=model.tied,
        dtype=_multiplied_in(model),
        notes=(*model.notes, *_unequal(model, parts.layers)),
    )


def _expert_bytes(model: Architecture, layer: int) -> float:
    """Return the bytes of the routed experts of a layer, packed as they are."""
    size: int = sheet()["bytes"][model.dtype]
    packing = model.quantization

    def stored(m: Matrix) -> float:
        plain = m.copies * m.outputs * (m.inputs + m.bias) * size
        return plain - packing.saved(layer, m, size) if packing else plain

    return sum(stored(m) for m in model.matrices(layer) if m.active < m.copies)


def _multiplied_in(model: Architecture) -> str:
    """Return the dtype of the products: 4-bit weights are unpacked to the 16 bit around them."""
    if model.quantization and model.quantization.method == "fp8":
        return "fp8"
    return model.dtype if model.dtype in ("fp32", "fp8") else "bf16"


def _unequal(model: Architecture, weights: Sequence[int]) -> tuple[str, ...]:
    found = list[str]()
    if len({*weights}) > 1:
        found.append(
            f"layers differ in size: memory counts {max(weights) / 1e9:.2f} GB for each, time the"
            f" mean, {_mean(weights) / 1e9:.2f} GB"
        )
    if any(model.window(i) for i in range(model.layers)):
        found.append("KV cache is counted for whole contexts in layers with a sliding window too")
    return tuple(found)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
