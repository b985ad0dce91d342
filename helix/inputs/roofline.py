"""Profiles of models and machines that nobody has measured, from data-sheet peaks.

A layer's pass takes as long as reading its weights and the KV cache of the batch, or as its
arithmetic, whichever is longer, at the share of the peak that the artifact's own measurements of
the A100, the L4 and the T4 attain with a 70B model (test_roofline.py holds the two together).
Several GPUs in a machine are one machine with tensor parallelism: memory and rates add up, less a
loss with every doubling.
"""

import math
import tomllib
from functools import cache
from importlib import resources

import msgspec

from common.errors import InputError
from helix.inputs.profile import KV_BLOCK_TOKENS, PROMPT_CAP_TOKENS, Curve, Limits, Profile

MEMORY_SHARE = 0.7  # of the peak bandwidth: 0.67 (T4), 0.70 (A100), 0.74 (L4)
FLOPS_SHARE = 0.45  # of the peak arithmetic: 0.37 (T4, L4), 0.71 (A100)
DOUBLING = 0.9  # what is left of a rate per GPU with every doubling of GPUs
USABLE = 0.8  # share of the memory that weights and KV cache may take (vLLM's setting there)
WEIGHTS = 0.5  # share of the memory that weights may take: sets the most layers held
CONTEXT = 750  # tokens of context that a decode reads from the KV cache
PROMPT_MEMORY = 0.037  # share of the memory for the activations of one batch's prompts
MOST_DECODES = 480


class Gpu(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Data-sheet peaks of one GPU."""

    memory_gb: float
    memory_gb_per_s: float
    tflops: float

    def __post_init__(self) -> None:
        """Refuse figures that no GPU has."""
        for field in self.__struct_fields__:
            if not 0 < getattr(self, field) < math.inf:
                raise InputError(f"GPU: {field} is {getattr(self, field)}, expected above 0")


class Shape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a decoder layer's size follows from; two bytes a value unless said otherwise."""

    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    value_bytes: int = 2

    def __post_init__(self) -> None:
        """Refuse shapes that no model has."""
        for field in self.__struct_fields__:
            if getattr(self, field) < 1:
                raise InputError(f"model.{field} is {getattr(self, field)}, expected 1 or more")
        if self.hidden_size % self.heads or self.heads % self.kv_heads:
            raise InputError(
                f"model: hidden_size {self.hidden_size}, heads {self.heads} and kv_heads"
                f" {self.kv_heads} have to divide one another in that order"
            )

    @property
    def kv_size(self) -> int:
        """Values that a token's keys (or values) have in one layer."""
        return self.hidden_size // self.heads * self.kv_heads

    @property
    def parameters(self) -> int:
        """Parameters of one layer: attention's four projections and the gated MLP's three."""
        attention = 2 * self.hidden_size * (self.hidden_size + self.kv_size)
        return attention + 3 * self.hidden_size * self.intermediate_size

    @property
    def layer_bytes(self) -> int:
        """Bytes of one layer's weights."""
        return self.parameters * self.value_bytes

    @property
    def kv_bytes(self) -> int:
        """Bytes of one token's keys and values in one layer."""
        return 2 * self.kv_size * self.value_bytes


@cache
def known_gpus() -> dict[str, Gpu]:
    """Return the shipped GPUs (`helix/data/gpus.toml`)."""
    text = resources.files("helix").joinpath("data/gpus.toml").read_text()
    return msgspec.convert(tomllib.loads(text), dict[str, Gpu])


def roofline(shape: Shape, gpu: Gpu, gpus: int = 1) -> Profile:
    """Return the profile of a machine with so many GPUs; raise `InputError` if no layer fits."""
    memory = gpus * gpu.memory_gb * 1e9
    rate = gpus * DOUBLING ** math.log2(gpus)
    bandwidth = rate * gpu.memory_gb_per_s * 1e9 * MEMORY_SHARE
    flops = rate * gpu.tflops * 1e12 * FLOPS_SHARE
    limits = limits_of(shape, memory)
    if not limits:
        raise InputError(
            f"a layer takes {shape.layer_bytes / 1e9:.2f} GB, but {gpus} GPUs of"
            f" {gpu.memory_gb:g} GB spare {WEIGHTS * memory / 1e9:.2f} GB for weights"
        )

    def seconds(tokens: int, kv_tokens: float) -> float:
        moved = shape.layer_bytes + kv_tokens * shape.kv_bytes
        return max(moved / bandwidth, 2 * tokens * shape.parameters / flops)

    prompts = [0, *range(256, limits[0].prompt_tokens + 1, 256)]
    decodes = [0, *(d for d in range(2, MOST_DECODES + 2, 2))]
    return Profile(
        prompt=Curve(tuple(prompts), tuple(seconds(n, 0) if n else 0.0 for n in prompts)),
        decode=Curve(tuple(decodes), tuple(seconds(n, n * CONTEXT) if n else 0.0 for n in decodes)),
        limits=limits,
    )


def limits_of(shape: Shape, memory: float) -> tuple[Limits, ...]:
    """Return the limits of a machine of so many bytes for 1, 2, ... layers; empty if none fits."""
    most = int(WEIGHTS * memory / shape.layer_bytes)
    return tuple(_limits(shape, memory, held) for held in range(1, most + 1))


def _limits(shape: Shape, memory: float, held: int) -> Limits:
    spare = USABLE * memory - held * shape.layer_bytes
    tokens = spare / (held * shape.kv_bytes)  # of every layer held
    blocks = int(tokens / KV_BLOCK_TOKENS)
    activations = PROMPT_CAP_TOKENS * shape.value_bytes
    activations *= 4 * shape.hidden_size + 3 * shape.intermediate_size
    return Limits(
        kv_entries=KV_BLOCK_TOKENS * blocks * held,
        prompt_requests=max(1, min(8, int(PROMPT_MEMORY * memory / activations))),
        decode_requests=max(2, min(MOST_DECODES, int(tokens / 940))),
    )
