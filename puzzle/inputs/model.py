"""LLaMA and its kin: sizes, parameters, and the tensors that layouts cut."""

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from common.case import read_toml
from common.errors import InputError
from puzzle.inputs.described import FamilyName, Llama3Rope, described
from puzzle.inputs.layout import Layout, layers_per_stage

Role = Literal["actor", "critic"]
"""`actor` has a language-model head, so has the reference; `critic` and reward a scalar one."""

EMBEDDING = "model.embed_tokens.weight"
FINAL_NORM = "model.norm.weight"
LM_HEAD = "lm_head.weight"
SCORE = "score.weight"


class Llama(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A LLaMA or its kin: pre-norm, RoPE, SwiGLU; head and embedding are trained apart."""

    config: str = ""
    """A `config.json`, its folder, or a catalogue's name (`Qwen3-8B`) that gives all below that is
    not given here; families llama, mistral, qwen2 and qwen3."""
    layers: int = 0
    """Transformer blocks."""
    hidden: int = 0
    """Width of a token's state."""
    heads: int = 0
    """Attention heads; the head size is even."""
    ffn: int = 0
    """Width inside the SwiGLU."""
    family: FamilyName = "llama"
    """Whose names weights are read and written by; tells nothing else."""
    head_dim: int | None = None
    """Width of a head; hidden / heads if it is not given."""
    qkv_bias: bool = False
    """Biases on queries, keys and values (Qwen2)."""
    qk_norm: bool = False
    """RMSNorm of every head's queries and keys before they are turned (Qwen3)."""
    kv_heads: int | None = None
    """Heads of keys and values, each of which serves heads / kv_heads queries (grouped-query
    attention, Ainslie et al., EMNLP 2023); as many as heads if it is not given."""
    vocabulary: int = 32000
    """Tokens of the embedding and of the head."""
    norm_epsilon: float = 1e-5
    """Added to the mean square in RMSNorm."""
    rope_base: float = 10000.0
    """Base of the rotary angles."""
    rope_scaling: Llama3Rope | None = None
    """Long wavelengths stretched, as in Llama 3.1."""
    window: int = 0
    """Tokens that a token attends to at most; 0: all before it. Longer sequences are refused."""

    def __post_init__(self) -> None:
        """Take what a configuration says; refuse sizes that do not make a model."""
        if self.config:
            for field, value in described(self.config).items():
                if getattr(self, field) == _DEFAULTS[field]:
                    msgspec.structs.force_setattr(self, field, value)
            msgspec.structs.force_setattr(self, "config", "")
        self._check()

    def _check(self) -> None:
        for field in ("layers", "hidden", "heads", "ffn", "vocabulary"):
            if getattr(self, field) < 1:
                raise InputError(f"model.{field} is {getattr(self, field)}, expected 1 or more")
        whole = self.head_dim or not self.hidden % self.heads
        if not whole or self.head_size < 2 or self.head_size % 2:
            raise InputError(
                f"model.hidden {self.hidden} / model.heads {self.heads} is no even head size"
                if self.head_dim is None
                else f"model.head_dim is {self.head_dim}, expected an even number"
            )
        if self.window < 0:
            raise InputError(f"model.window is {self.window}, expected 0 or more")
        if self.key_heads < 1 or self.heads % self.key_heads:
            raise InputError(
                f"model.kv_heads is {self.key_heads}, expected a divisor of model.heads"
                f" ({self.heads})"
            )
        for field in ("norm_epsilon", "rope_base"):
            if not getattr(self, field) > 0:
                raise InputError(f"model.{field} is {getattr(self, field)}, expected above 0")

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.head_dim or self.hidden // self.heads

    @property
    def query_width(self) -> int:
        """Elements of one token's queries in one layer: hidden, but where `head_dim` differs."""
        return self.heads * self.head_size

    @property
    def key_heads(self) -> int:
        """Heads of keys, and of values."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def key_width(self) -> int:
        """Elements of one token's keys in one layer, and of its values."""
        return self.key_heads * self.head_size


_DEFAULTS = {field.name: field.default for field in msgspec.structs.fields(Llama)}


class Tensor(NamedTuple):
    """One weight: its Hugging Face name, shape, the axis that tensor parallelism cuts, its layer.

    `layer` is -1 for what the first stage holds and `layers` for what the last one holds.
    """

    name: str
    shape: tuple[int, ...]
    axis: int | None
    layer: int

    @property
    def size(self) -> int:
        """Elements."""
        count = 1
        for length in self.shape:
            count *= length
        return count


@cache
def tensors(model: Llama, role: Role = "actor") -> tuple[Tensor, ...]:
    """Return all weights of a model in pipeline order."""
    h, f, v, last = model.hidden, model.ffn, model.vocabulary, model.layers
    q = model.query_width
    widths = {"q": q, "k": model.key_width, "v": model.key_width}
    found = [Tensor(EMBEDDING, (v, h), 0, -1)]
    for layer in range(model.layers):
        prefix = f"model.layers.{layer}"
        found += [
            Tensor(f"{prefix}.self_attn.{x}_proj.weight", (width, h), 0, layer)
            for x, width in widths.items()
        ]
        if model.qkv_bias:
            found += [
                Tensor(f"{prefix}.self_attn.{x}_proj.bias", (width,), 0, layer)
                for x, width in widths.items()
            ]
        if model.qk_norm:
            size = (model.head_size,)
            found += [
                Tensor(f"{prefix}.self_attn.{x}_norm.weight", size, None, layer) for x in "qk"
            ]
        found += [
            Tensor(f"{prefix}.self_attn.o_proj.weight", (h, q), 1, layer),
            Tensor(f"{prefix}.mlp.gate_proj.weight", (f, h), 0, layer),
            Tensor(f"{prefix}.mlp.up_proj.weight", (f, h), 0, layer),
            Tensor(f"{prefix}.mlp.down_proj.weight", (h, f), 1, layer),
            Tensor(f"{prefix}.input_layernorm.weight", (h,), None, layer),
            Tensor(f"{prefix}.post_attention_layernorm.weight", (h,), None, layer),
        ]
    found.append(Tensor(FINAL_NORM, (h,), None, last))
    if role == "actor":
        found.append(Tensor(LM_HEAD, (v, h), 0, last))
    else:
        found.append(Tensor(SCORE, (1, h), None, last))
    return tuple(found)


def parameters(model: Llama, role: Role = "actor") -> int:
    """Return the number of weights."""
    return sum(tensor.size for tensor in tensors(model, role))


def layer_weights(model: Llama) -> int:
    """Return the matrix elements of one layer: 4 h^2 + 3 h f with as many key heads as heads."""
    return model.hidden * (2 * model.query_width + 2 * model.key_width + 3 * model.ffn)


def stage_of(tensor: Tensor, model: Llama, stages: int) -> int:
    """Return the pipeline stage that holds a tensor."""
    if tensor.layer < 0:
        return 0
    if tensor.layer >= model.layers:
        return stages - 1
    counts = layers_per_stage(model.layers, stages)
    before = 0
    for stage, count in enumerate(counts):
        before += count
        if tensor.layer < before:
            return stage
    raise AssertionError(tensor)


def check_layout(model: Llama, layout: Layout, what: str = "layout") -> None:
    """Raise InputError unless the layout can hold the model."""
    layers_per_stage(model.layers, layout.pipeline)
    for field, value in (
        ("heads", model.heads),
        ("kv_heads", model.key_heads),
        ("ffn", model.ffn),
        ("vocabulary", model.vocabulary),
    ):
        if value % layout.tensor:
            raise InputError(
                f"{what} {layout}: tensor parallelism of {layout.tensor} does not divide the"
                f" model's {field} ({value})"
            )


@cache
def known_models() -> dict[str, Llama]:
    """Return the paper's models by name (`data/models.toml`)."""
    with resources.as_file(resources.files("puzzle").joinpath("data/models.toml")) as path:
        return read_toml(Path(path), dict[str, Llama])
