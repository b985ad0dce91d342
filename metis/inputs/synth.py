"""The synthetic profile: the nine published A100 measurements stretched to any model depth.

The rules are those of the CS598 artifact's generator: blocks repeat, batch sizes beyond 4 double
the time, tensor degrees beyond 4 halve it (perfect scaling, no communication: an assumption
that makes very wide tensor groups look cheap), other device types multiply every time.
"""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Literal

import msgspec

from common.errors import InputError
from metis.inputs.profile import LayerProfile, ProfileKey, Profiles

MEASURED = (1, 2, 4)
"""Tensor degrees and micro-batch sizes that were really measured."""

MemoryTable = Literal["flat", "measured"]


class _Measurement(msgspec.Struct, frozen=True):
    tp: int
    bs: int
    forward_backward_time_ms: float
    batch_generator_time_ms: float
    layernorm_grads_all_reduce_time_ms: float
    embedding_grads_all_reduce_time_ms: float
    optimizer_time_ms: float
    layer_ms: tuple[float, float, float]
    memory_mb: tuple[float, float, float]


class _Base(msgspec.Struct, frozen=True):
    device: str
    layers: int
    parameters_bytes: tuple[float, float, float]
    flat_memory_mb: tuple[float, float, float]
    profiles: tuple[_Measurement, ...]


@cache
def _base() -> _Base:
    text = resources.files("metis").joinpath("data/a100_gpt3.toml").read_text()
    return msgspec.convert(tomllib.loads(text), _Base)


def synthesize(
    layers: int,
    *,
    max_tp: int,
    max_batch_size: int,
    time_scale: Mapping[str, float],
    memory: MemoryTable = "measured",
    first: ProfileKey | None = None,
) -> Profiles:
    """Return profiles of `layers` layers for every type of `time_scale`.

    Degrees and batch sizes are the powers of two up to the two limits. `memory="flat"` keeps the
    artifact's one value per layer kind; `"measured"` uses upstream's later table and grows it
    linearly in the batch beyond 4. `first` moves one profile to the front.
    """
    entries: dict[ProfileKey, LayerProfile] = {}
    for tp in powers_of_two(max_tp):
        for bs in powers_of_two(max_batch_size):
            entry = _stretch(layers, tp, bs, memory)
            for device, scale in time_scale.items():
                entries[ProfileKey(device, tp, bs)] = _scale(entry, scale)
    if first is not None:
        if first not in entries:
            raise InputError(
                f"search.first_profile {first} is not in the synthetic profile"
                f" (types {', '.join(time_scale)}, tp to {max_tp}, bs to {max_batch_size})"
            )
        entries = {first: entries[first], **entries}
    return Profiles(entries, "synthetic profile")


def powers_of_two(limit: int) -> list[int]:
    """Return 1, 2, 4, ... up to `limit`."""
    return [1 << k for k in range(limit.bit_length()) if 1 << k <= limit]


def _measurement(tp: int, bs: int) -> _Measurement:
    return next(m for m in _base().profiles if (m.tp, m.bs) == (tp, bs))


def _expand(triple: tuple[float, float, float], layers: int) -> tuple[float, ...]:
    first, block, last = triple
    return (first, *(block,) * (layers - 2), last)


def _stretch(layers: int, tp: int, bs: int, memory: MemoryTable) -> LayerProfile:
    """Return the A100 profile of any degree and batch size.

    Orders of operation follow the generator, so that the floats are the same to the last bit.
    """
    base = _base()
    m = _measurement(min(tp, 4), min(bs, 4))
    outside = m.forward_backward_time_ms - sum(_expand(m.layer_ms, base.layers))
    layer_ms = _expand(m.layer_ms, layers)
    forward_backward = outside + sum(layer_ms)
    # Doubling and halving are exact in binary floating point, so one factor does it.
    factor = max(bs / 4, 1.0) / max(tp / 4, 1.0)
    return LayerProfile(
        layer_ms=tuple(time * factor for time in layer_ms),
        memory_mb=_memory(layers, min(tp, 4), bs, memory),
        parameters_bytes=_expand(base.parameters_bytes, layers),
        forward_backward_ms=forward_backward * factor,
        optimizer_ms=m.optimizer_time_ms / base.layers * layers,
        batch_generator_ms=m.batch_generator_time_ms,
        layernorm_allreduce_ms=m.layernorm_grads_all_reduce_time_ms / base.layers * layers,
        embedding_allreduce_ms=m.embedding_grads_all_reduce_time_ms,
    )


def _memory(layers: int, tp: int, bs: int, memory: MemoryTable) -> tuple[float, ...]:
    if memory == "flat":
        return _expand(_base().flat_memory_mb, layers)
    if bs <= MEASURED[-1]:
        return _expand(_measurement(tp, bs).memory_mb, layers)
    at_2, at_4 = _measurement(tp, 2).memory_mb, _measurement(tp, 4).memory_mb
    grown = [b + max(b - a, 0.0) / 2 * (bs - 4) for a, b in zip(at_2, at_4, strict=True)]
    return _expand((grown[0], grown[1], grown[2]), layers)


def _scale(entry: LayerProfile, scale: float) -> LayerProfile:
    if scale == 1.0:
        return entry
    return msgspec.structs.replace(
        entry,
        layer_ms=tuple(time * scale for time in entry.layer_ms),
        forward_backward_ms=entry.forward_backward_ms * scale,
        optimizer_ms=entry.optimizer_ms * scale,
        batch_generator_ms=entry.batch_generator_ms * scale,
        layernorm_allreduce_ms=entry.layernorm_allreduce_ms * scale,
        embedding_allreduce_ms=entry.embedding_allreduce_ms * scale,
    )
