"""Analytic profiles: of models and machines that nobody has measured, from data-sheet peaks.

A layer's pass takes as long as reading its weights and the KV cache of the batch, or as its
arithmetic, whichever is longer, at the share of the peak that the artifact's own measurements of
the A100, the L4 and the T4 attain with a 70B model (test_roofline.py holds the two together).
Several GPUs in a machine are one machine with tensor parallelism: memory and rates add up, less a
loss with every doubling. Weights come first; what is left of the usable memory is KV cache.
"""

import math

import msgspec

from common.devices import Device
from common.errors import InputError
from helix.inputs.layer import CONTEXT, Layer
from helix.inputs.profile import KV_BLOCK_TOKENS, PROMPT_CAP_TOKENS, Curve, Limits, Profile

PROMPT_MEMORY = 0.037  # share of the memory for the activations of one batch's prompts
MOST_DECODES = 480
LEAST_KV_TOKENS = PROMPT_CAP_TOKENS  # a machine that cannot keep one prompt serves nobody


class Gpu(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Data-sheet peaks of one GPU."""

    memory_gb: float
    """GB of memory."""
    memory_gb_per_s: float
    """GB per second of memory bandwidth."""
    tflops: float
    """Dense TFLOP per second in what the model computes in, half precision as a rule."""

    def __post_init__(self) -> None:
        """Refuse figures that no GPU has."""
        for field in self.__struct_fields__:
            if not 0 < getattr(self, field) < math.inf:
                raise InputError(f"GPU: {field} is {getattr(self, field)}, expected above 0")


class Efficiency(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is attained of data-sheet peaks."""

    memory: float = 0.7
    """Share of the bandwidth; measured by the artifact: 0.67 (T4), 0.70 (A100), 0.74 (L4)."""
    compute: float = 0.45
    """Share of the arithmetic; measured by the artifact: 0.37 (T4, L4), 0.71 (A100)."""
    doubling: float = 0.9
    """What is left of a rate per GPU with every doubling of the GPUs in a machine."""

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        for field in self.__struct_fields__:
            if not 0 < getattr(self, field) <= 1:
                raise InputError(
                    f"profile.efficiency.{field} is {getattr(self, field)}, expected above 0 and"
                    " at most 1"
                )


def gpu_of(device: Device, dtype: str) -> Gpu:
    """Return a device's peaks in that dtype; bf16 in fp16, fp8 in 16 bit where it has no other."""
    like = {"fp8": ("fp8", "bf16", "fp16"), "bf16": ("bf16", "fp16")}.get(dtype, (dtype,))
    best = next((one for one in like if one in device.tflops), dtype)
    return Gpu(
        memory_gb=device.memory_gb,
        memory_gb_per_s=device.memory_gb_per_s,
        tflops=device.flops(best) / 1e12,
    )


def roofline(
    layer: Layer, gpu: Gpu, gpus: int = 1, attained: Efficiency | None = None, usable: float = 0.9
) -> Profile:
    """Return the profile of a machine with so many GPUs; raise `InputError` if no layer fits."""
    attained = attained or Efficiency()
    memory = gpus * gpu.memory_gb * 1e9
    rate = gpus * attained.doubling ** math.log2(gpus)
    bandwidth = rate * gpu.memory_gb_per_s * 1e9 * attained.memory
    flops = rate * gpu.tflops * 1e12 * attained.compute
    limits = limits_of(layer, memory, usable)
    if not limits:
        raise InputError(
            f"a layer takes {layer.held_bytes / 1e9:.2f} GB, embedding or head"
            f" {layer.end_bytes(1) / 1e9:.2f} GB and the KV cache of {LEAST_KV_TOKENS} tokens"
            f" {LEAST_KV_TOKENS * layer.kv_bytes / 1e9:.2f} GB, but {gpus} x {gpu.memory_gb:g} GB"
            f" at profile.memory_fraction {usable:g} have {usable * memory / 1e9:.2f} GB"
        )

    def seconds(tokens: int, context: float, kv_tokens: float) -> float:
        moved = layer.read_bytes(tokens) + kv_tokens * layer.kv_read
        work = tokens * (layer.linear_flop + context * layer.attention_flop)
        return max(moved / bandwidth, work / flops)

    prompts = [0, *range(256, limits[0].prompt_tokens + 1, 256)]
    decodes = [0, *range(2, MOST_DECODES + 2, 2)]
    of_prompts = (seconds(n, CONTEXT / 2, 0) if n else 0.0 for n in prompts)  # causal: half
    of_decodes = (seconds(n, CONTEXT, n * CONTEXT) if n else 0.0 for n in decodes)
    return Profile(
        prompt=Curve(tuple(prompts), tuple(of_prompts)),
        decode=Curve(tuple(decodes), tuple(of_decodes)),
        limits=limits,
        memory=memory,
    )


def limits_of(layer: Layer, memory: float, usable: float) -> tuple[Limits, ...]:
    """Return the limits of a machine of so many bytes for 1, 2, ... layers; empty if none fits.

    `usable` is the share that weights and KV cache may take: the rest is for the driver's context,
    activations and buffers of messages.
    """
    found = list[Limits]()
    for held in range(1, layer.layers + 1):
        spare = usable * memory - held * layer.held_bytes - layer.end_bytes(held)
        tokens = spare / (held * layer.kv_bytes)  # of every layer held
        if tokens < LEAST_KV_TOKENS:
            break
        found.append(_limits(layer, memory, held, tokens))
    return tuple(found)


def _limits(layer: Layer, memory: float, held: int, tokens: float) -> Limits:
    prompts = int(PROMPT_MEMORY * memory / (PROMPT_CAP_TOKENS * layer.work_bytes))
    return Limits(
        kv_entries=KV_BLOCK_TOKENS * int(tokens / KV_BLOCK_TOKENS) * held,
        prompt_requests=max(1, min(8, prompts)),
        decode_requests=max(2, min(MOST_DECODES, int(tokens / 940))),
    )
