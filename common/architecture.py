"""The sizes of a model, and what follows from them exactly: parameters, bytes, KV cache and FLOP.

The shapes of a model's parts are data (`families.toml`); `common.model` reads models from files.
"""

import re
import tomllib
from collections.abc import Callable
from fnmatch import fnmatch
from functools import cache
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from common.errors import InputError
from common.names import look_up

Size = Annotated[int, msgspec.Meta(ge=1)]  # a default of 0: to be derived, or none


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """One count of each part of a model: `positions` with token types, `final` norm or pooler."""

    embedding: int = 0
    positions: int = 0
    layers: tuple[int, ...]
    final: int = 0
    head: int = 0

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return self.embedding + self.positions + sum(self.layers) + self.final + self.head


class Matrix(NamedTuple):
    """A linear map, of which a layer holds `copies` and a token uses `active`."""

    name: str
    inputs: int
    outputs: int
    bias: int
    copies: int
    active: int


class Quantization(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the layers' matrices are packed, but routers and modules that `kept` names (or `*`)."""

    method: Literal["fp8", "awq", "gptq", "mxfp4"]  # the last packs experts only
    bits: Literal[4, 8]
    group_size: Annotated[int, msgspec.Meta(ge=-1)]  # inputs that share a scale; -1: all
    block: tuple[Size, Size] | None = None  # fp8: outputs and inputs that share one; None: all
    kept: tuple[str, ...] = ()

    def keeps(self, layer: int, matrix: str, words: tuple[str, ...] = ()) -> bool:
        """Return whether a matrix is not packed, by all the words kept or by those given."""
        name = f".model.layers.{layer}.{matrix}."
        if not words and self.method == "mxfp4" and ".experts." not in name:
            return True
        return any(fnmatch(name, f"*.{word}.*") for word in words or ("mlp.router", *self.kept))

    def saved(self, layer: int, m: Matrix, size: int) -> int:
        """Return the bytes saved on values of `size`; scales, zeros, indices counted as stored."""
        if self.keeps(layer, m.name):
            return 0
        rows, columns = self.block or (m.outputs if self.method == "fp8" else 1, self.group_size)
        scales = -(-m.outputs // rows) * -(-m.inputs // (columns if columns > 0 else m.inputs))
        scale_bits = {"fp8": 32, "mxfp4": 8}.get(self.method, 16 + self.bits)  # with a zero point
        index_bits = 32 * m.inputs * (self.method == "gptq")
        bits = m.inputs * m.outputs * self.bits + scales * scale_bits + index_bits
        return m.copies * (m.inputs * m.outputs * size - bits // 8)


class Architecture(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model's sizes. Files use these words or Hugging Face's; `facts` are words there too."""

    family: str
    layers: Size
    hidden: Size
    heads: Size
    kv_heads: Size = 0
    head_dim: Size = 0  # of queries and keys
    mlp_width: Size = 0  # 0 where every layer has experts
    vocabulary: Size
    context: Size  # tokens
    tied: bool  # head and embedding are one matrix
    experts: Annotated[int, msgspec.Meta(ge=0)] = 0
    active_experts: Size = 0
    expert_width: Size = 0
    dense_layers: tuple[int, ...] = ()
    layer_types: tuple[Literal["full_attention", "sliding_attention"], ...] = ()
    attention_softcap: float = 0.0
    logit_softcap: float = 0.0
    rope: dict[str, Any] = {}  # rope_theta, rope_type, factor ..., as transformers' rope_parameters
    dtype: str = "bf16"
    kv_dtype: str = ""  # as dtype
    quantization: Quantization | None = None
    facts: dict[str, bool | int] = {}  # what else the formulas of families.toml use
    notes: tuple[str, ...] = ()  # what is not counted, what was assumed

    def __post_init__(self) -> None:
        """Derive what may be left out, and refuse what contradicts itself."""
        heads, slides = self.heads, "sliding_attention" in self.layer_types
        facts: dict[str, bool | int] = sheet()["facts"] | self.facts
        latent = facts["nope_dim"] + facts["rope_dim"]
        whole = self.head_dim or latent or self.hidden % heads == 0
        derived = {
            "facts": facts,
            "kv_heads": self.kv_heads or heads,
            "head_dim": latent or self.head_dim or self.hidden // heads,
            "mlp_width": self.mlp_width or 4 * self.hidden * (not self.experts),
            "dtype": known_dtype(self.dtype),
            "kv_dtype": known_dtype(self.kv_dtype or self.dtype),
        }
        for name, value in derived.items():
            msgspec.structs.force_setattr(self, name, value)
        square = (self.kv_heads, heads * self.head_dim) == (heads, self.hidden)
        wrong = {
            "`heads` {heads} does not divide `hidden` {hidden}; give a head_dim": not whole,
            "`kv_heads` {kv_heads} does not divide `heads` {heads}": heads % self.kv_heads,
            "`kv_heads` {kv_heads} or `head_dim` {head_dim} differs from what `heads` {heads} and "
            "`hidden` {hidden} make of it": facts["learned"] and not square,
            "`active_experts` {active_experts} must be 1 to `experts` {experts}": self.experts
            and not 0 < self.active_experts <= self.experts,
            "`dense_layers` {dense_layers} must be below `layers` {layers}": self.dense_layers
            and max(self.dense_layers) >= self.layers,
            "`layer_types` must be as many as `layers` {layers}": self.layer_types
            and len(self.layer_types) != self.layers,
            "`layer_types` slide without `window` in use": slides
            and not (facts["use_window"] and facts["window"]),
        }
        for text in (text for text, is_so in wrong.items() if is_so):
            raise InputError(text.format(**msgspec.structs.asdict(self)))
        if packing := self.quantization:
            maps = [(i, m.name) for i in range(self.layers) for m in self.matrices(i)]
            for word in packing.kept:
                never = re.search(sheet()["quantization"]["reading"]["never"], word)
                if not never and not any(packing.keeps(*one, words=(word,)) for one in maps):
                    raise InputError(
                        f"`quantization` keeps {word!r}, which is no matrix of a layer"
                    )

    def has_experts(self, layer: int) -> bool:
        """Return whether that layer has experts in place of one MLP."""
        in_step = (layer + 1) % self.facts["expert_step"] == 0 and layer not in self.dense_layers
        return self.experts > 0 and layer >= self.facts["first_expert_layer"] and in_step

    def window(self, layer: int) -> int:
        """Return the tokens that a token attends to at most in that layer; 0: all before it."""
        full = layer < self.facts["full_layers"]
        full |= (layer + 1) % (self.facts["window_pattern"] or layer + 2) == 0
        if self.layer_types:
            full = self.layer_types[layer] == "full_attention"
        return 0 if full or not self.facts["use_window"] else self.facts["window"]

    def matrices(self, layer: int) -> list[Matrix]:
        """Return the linear maps of a layer, named as checkpoints of the llama family name them."""
        attention = "latent" if self.facts["kv_rank"] else "attention"
        kinds = (attention, "experts" if self.has_experts(layer) else "mlp")
        rows = [row for kind in kinds for row in sheet()["matrices"][kind]]
        found = [Matrix(name, *map(self._size, sizes)) for name, *sizes in rows]
        return [m for m in found if m.inputs * m.outputs]

    def parameters(self) -> Parts:
        """Return the parameters of each part; a tied head is counted in the embedding alone."""
        parts = {part: self._size(text) for part, text in sheet()["parts"].items()}
        matrices = self._by_layer(lambda m: m.copies * m.outputs * (m.inputs + m.bias))
        besides = parts.pop("layers")
        return Parts(layers=tuple(besides + count for count in matrices), **parts)

    def active_parameters(self) -> int:
        """Return the parameters that one token uses: all but those of experts left out."""
        idle = self._by_layer(lambda m: (m.copies - m.active) * m.outputs * (m.inputs + m.bias))
        return self.parameters().total - sum(idle)

    def weight_bytes(self, stored: str = "") -> Parts:
        """Return bytes of weights, all in the dtype `stored`, or as the model is (quantized)."""
        size = sheet()["bytes"][known_dtype(stored or self.dtype)]
        counts = msgspec.structs.asdict(self.parameters())
        layers = [size * count for count in counts.pop("layers")]
        if (packing := self.quantization) and not stored:
            for i in range(self.layers):
                layers[i] -= sum(packing.saved(i, m, size) for m in self.matrices(i))
        return Parts(layers=tuple(layers), **{part: size * n for part, n in counts.items()})

    def kv_bytes(self, tokens: int = 1, stored: str = "") -> tuple[int, ...]:
        """Return the bytes of KV cache that a sequence of so many tokens takes, by layer."""
        values = "kv_rank + rope_dim" if self.facts["kv_rank"] else "2*kv_heads*head_dim*decoder"
        size = self._size(values) * sheet()["bytes"][known_dtype(stored or self.kv_dtype)]
        return tuple(size * n for n in self._attended(tokens))

    def linear_flop(self) -> Parts:
        """Return the FLOP (2 a multiply-add) of one token forward in the linear maps and head."""
        layers = self._by_layer(lambda m: 2 * m.active * m.inputs * m.outputs)
        return Parts(layers=layers, head=self._size("2*hidden*vocabulary*decoder"))

    def attention_flop(self, context: int) -> tuple[int, ...]:
        """Return the FLOP of one token's scores and values over `context` tokens, by layer.

        Latent attention counts expanded, as trained; linear maps expand each token once.
        """
        each = 2 * self.heads * (self.head_dim + (self.facts["value_dim"] or self.head_dim))
        return tuple(each * n for n in self._attended(context))

    def _attended(self, tokens: int) -> list[int]:
        return [min(tokens, self.window(i) or tokens) for i in range(self.layers)]

    def _by_layer(self, count: Callable[[Matrix], int]) -> tuple[int, ...]:
        return tuple(sum(map(count, self.matrices(i))) for i in range(self.layers))

    def _size(self, text: str) -> int:
        flags = {"untied": not self.tied, "decoder": not self.facts["encoder"]}
        words = msgspec.structs.asdict(self) | self.facts | flags
        words["unranked"] = not self.facts["q_rank"]
        terms = [term.strip().split("*") for term in text.split("+")]
        return sum(prod(int(words.get(word, word)) for word in term) for term in terms)


@cache
def sheet(name: str = "families") -> Any:
    """Return the tables of that TOML file beside this one."""
    return tomllib.loads(Path(__file__).with_name(f"{name}.toml").read_text("utf-8"))


def known_dtype(name: str) -> str:
    """Return the short name (fp32, fp16, bf16, fp8, int8) of `torch.bfloat16` and the like."""
    return look_up(name.removeprefix("torch."), sheet()["dtypes"], "dtype")
