"""Profiles where none is measured: a model by its `config.json`, a device by its data sheet.

A request is one pass over `sequence` tokens: a classifier's answer, or an LLM's first token; no
decoding. A layer takes the longer of computing (FLOP at the share COMPUTE of the sheet's peak; the
scores and values of attention at ATTENTION) and reading its weights (at MEMORY of the bandwidth);
then norms, sums and the like, which pass over its activations, and LAUNCH_S. `op` devices add up
twice a layer, and stages hand activations on, at LINK of the link. Whatever is made with such a
profile says so.

COMPUTE, MEMORY, PASSES and LAUNCH_S were fitted to half of ten pairs of a device (A100, H100, A40)
and an LLM whose layers vidur's authors measured (Agrawal et al., MLSys 2024; MIT licence): median
error 4.2 % there, 4.6 % on the other half. ATTENTION is what prefills of 2048 tokens and more reach
in aiconfigurator's tables (A100, H100; Apache 2.0): 0.42 in the median. LINK is assumed.
"""

from collections.abc import Iterator
from typing import NamedTuple

from beta.inputs.profile import Config, Profile, Record
from common.architecture import Architecture, Matrix, Parts
from common.devices import Device

COMPUTE, ATTENTION, MEMORY, LINK = 0.7, 0.4, 0.8, 0.7
"""Shares of the sheet's figures that are reached."""
LAUNCH_S, EXCHANGE_S = 50e-6, 20e-6
"""Seconds of a layer and of an exchange that do not depend on sizes."""
OPS, PPS = (1, 2, 4, 8), (1, 2, 4, 8, 16)
BATCHES = (1, 2, 4, 8, 16)
PASSES = 12
"""Times that a layer's activations are written and read, in vectors of `hidden` a token."""
BYTES = 2
"""Of an activation's value."""
POINTS = 16
"""Positions of a sequence at which attention is counted, evenly spread."""


class Task(NamedTuple):
    """What is computed on what."""

    model: Architecture
    device: Device
    sequence: int


def analytic_profile(name: str, task: Task) -> Profile:
    """Return the profile of a model on a device, for passes over `sequence` tokens each.

    Configs are those whose `op` divides the heads and whose `pp` leaves each stage a layer.
    """
    model, sizes = task.model, _sizes(task)
    records = dict[Config, Record]()
    for op in (op for op in OPS if model.heads % op == 0):
        layers = {batch: _layers_s(task, sizes, op, batch) for batch in BATCHES}
        for pp in (pp for pp in PPS if pp <= model.layers):
            records[Config(op, pp)] = _record(task, sizes, Config(op, pp), layers)
    return Profile(model=name, records=records)


class _Sizes(NamedTuple):
    """What follows from the model, by layer."""

    weights: Parts
    """Bytes."""
    linear: Parts
    """FLOP of a token."""
    attention: list[float]
    """FLOP of a sequence."""
    matrices: list[list[Matrix]]


def _sizes(task: Task) -> _Sizes:
    model = task.model
    matrices = [model.matrices(layer) for layer in range(model.layers)]
    attention = _attention_flop(model, task.sequence)
    return _Sizes(model.weight_bytes(), model.linear_flop(), attention, matrices)


def _record(task: Task, sizes: _Sizes, config: Config, layers: dict[int, list[float]]) -> Record:
    weights, stages = sizes.weights, list(_stages(task.model.layers, config.pp))
    held = [sum(weights.layers[i] for i in stage) / config.op for stage in stages]
    held[0] += (weights.embedding + weights.positions) / config.op
    held[-1] += (weights.final + weights.head) / config.op
    seconds = {
        batch: tuple(_stage_s(task, sizes, config, stages, batch, layers[batch]))
        for batch in BATCHES
    }
    return Record(stage_s=seconds, weight_bytes=tuple(held))


def _stages(layers: int, pp: int) -> Iterator[range]:
    """Yield each stage's layers, spread evenly, the first stages fuller."""
    first = 0
    for stage in range(pp):
        size = layers // pp + (stage < layers % pp)
        yield range(first, first + size)
        first += size


def _stage_s(
    task: Task, sizes: _Sizes, config: Config, stages: list[range], batch: int, layers: list[float]
) -> Iterator[float]:
    vectors = batch * task.sequence * task.model.hidden * BYTES
    handed = EXCHANGE_S + vectors / _link(task.device)
    for number, stage in enumerate(stages):
        last = number + 1 == len(stages)
        more = _head_s(task, sizes, config.op, batch) if last else handed
        yield sum(layers[i] for i in stage) + more


def _head_s(task: Task, sizes: _Sizes, op: int, batch: int) -> float:
    """Return the seconds of the head, which sees one token of each request."""
    computing = batch * sizes.linear.head / op / (COMPUTE * _peak(task))
    return max(computing, sizes.weights.head / op / _bandwidth(task))


def _layers_s(task: Task, sizes: _Sizes, op: int, batch: int) -> list[float]:
    """Return the seconds of every layer on each of `op` devices."""
    tokens, peak = batch * task.sequence, _peak(task)
    vectors = tokens * task.model.hidden * BYTES
    exchange = 2 * (EXCHANGE_S + 2 * (op - 1) / op * vectors / _link(task.device))
    found = list[float]()
    for i in range(task.model.layers):
        computing = tokens * sizes.linear.layers[i] / (COMPUTE * peak)
        computing += batch * sizes.attention[i] / (ATTENTION * peak)
        reading = sizes.weights.layers[i] * _touched(sizes.matrices[i], tokens) / _bandwidth(task)
        besides = PASSES * vectors / _bandwidth(task) + LAUNCH_S
        seconds = max(computing, reading) / op + besides
        found.append(seconds + (exchange if op > 1 else 0.0))
    return found


def _touched(matrices: list[Matrix], tokens: int) -> float:
    """Return the share of a layer's weights that so many tokens use: not all experts at once."""
    sizes = [m.copies * m.inputs * m.outputs for m in matrices]
    shares = [min(1.0, m.active * tokens / m.copies) for m in matrices]
    return sum(size * share for size, share in zip(sizes, shares, strict=True)) / sum(sizes)


def _attention_flop(model: Architecture, sequence: int) -> list[float]:
    """Return the FLOP of a sequence's scores and values by layer; encoders attend to all of it."""
    if model.facts["encoder"]:
        return [float(sequence * flop) for flop in model.attention_flop(sequence)]
    middles = [max((2 * k + 1) * sequence // (2 * POINTS), 1) for k in range(POINTS)]
    by_point = [model.attention_flop(middle) for middle in middles]
    return [sequence * sum(column) / POINTS for column in zip(*by_point, strict=True)]


def _peak(task: Task) -> float:
    dtype = task.model.dtype
    known = task.device.tflops
    # A device without bf16 units computes in fp16; weights wider than 16 bit in what it has.
    usable = next((d for d in (dtype, "bf16", "fp16", "fp32") if d in known), next(iter(known)))
    return task.device.flops(usable)


def _bandwidth(task: Task) -> float:
    return MEMORY * 1e9 * task.device.memory_gb_per_s


def _link(device: Device) -> float:
    return LINK * 1e9 * (device.link_gb_per_s or device.pcie_gb_per_s)
