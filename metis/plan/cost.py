"""The terms of the cost model, one pure function each (heterogeneous model of Metis §3).

cost = (B - 1) max_s E_s + sum_s E_s + F + max_s U_s + max_s D_s + sum_s P_s + B batch_generator

All times in milliseconds per iteration, bandwidths in GB/s, sizes in bytes (or elements where
the original counts elements). E_s, the execution time of stage s for one micro-batch, comes
from the profiles (`stages.py`).
"""

from typing import NamedTuple

BYTES_PER_MS = 1 << 20
"""Bytes per millisecond of one GB/s, as the original converts."""

DECIMAL_PER_MS = 1_000_000
"""Bytes per millisecond of one GB/s of 10^9 bytes, as links are sold."""

BYTES_PER_ELEMENT = 2
"""Activations travel in 16 bits (strict)."""

DIRECTIONS = 2
"""Activations go down the pipeline, their gradients come back (strict)."""


class CostTerms(NamedTuple):
    """The terms of one plan's cost, ms."""

    pipeline: float
    """(B - 1) times the slowest stage."""
    fill: float
    """Sum of the stages: filling and draining the pipeline."""
    sync: float
    update: float
    allreduce: float
    send: float
    batch_generator: float

    @property
    def total(self) -> float:
        """The plan's cost: milliseconds per iteration."""
        return (
            self.pipeline
            + self.fill
            + self.sync
            + self.update
            + self.allreduce
            + self.send
            + self.batch_generator
        )


def update_ms(optimizer_ms: float, *, tp: int, layers: int, all_layers: int) -> float:
    """U_s = optimizer / tp * layers / all_layers: the optimizer step of a stage.

    `optimizer_ms` is the time of the whole model on one device, divided by dp by the caller where
    the optimizer is sharded.
    """
    return optimizer_ms / tp * (layers / all_layers)


def allreduce_ms(parameters: float, *, dp: int, bandwidth: float) -> float:
    """D_s = 2 (dp - 1) / (dp bw) * parameters: a ring all-reduce over the replicas.

    `parameters` in bytes per rank. With a sharded optimizer it is the reduce-scatter of gradients
    and the all-gather of weights, each half of it; 16-bit weights beside 32-bit gradients are
    counted as large as these, so never too small.
    """
    return 2 * (dp - 1) / (dp * (bandwidth * BYTES_PER_MS)) * parameters


def send_ms(amount: float, *, bandwidth: float) -> float:
    """P_s = amount / bw: hand one micro-batch to the next stage."""
    return amount / (bandwidth * BYTES_PER_MS)


def original_parameters(parameters: tuple[float, ...], *, tp: int, first: int, end: int) -> float:
    """Return the bytes per rank of layers first..end-1 as the original counts them.

    Embedding if the stage starts at layer 0, head if it ends at the last, blocks for the rest;
    an empty first or last stage comes out with a negative number of blocks.
    """
    has_input, has_output = first == 0, end == len(parameters)
    blocks = end - first - has_input - has_output
    total = blocks * (parameters[1] / tp)
    if has_input:
        total += parameters[0] / tp
    if has_output:
        total += parameters[-1] / tp
    return total


def combine(
    *,
    batches: int,
    execution: list[float],
    sends: list[float],
    sends_every_batch: bool,
    sync_ms: float,
    updates: list[float],
    allreduces: list[float],
    batch_generator_ms: float,
) -> CostTerms:
    """Add the stages' terms up.

    `sends_every_batch`: transfers overlap with execution, so a link slower than every stage
    paces the pipeline (strict); otherwise transfers only add up once.
    """
    slowest = max(execution)
    if sends_every_batch and sends:
        slowest = max(slowest, *sends)
    fill = 0.0
    for time in execution:
        fill += time
    sent = 0.0
    for time in sends:
        sent += time
    return CostTerms(
        pipeline=(batches - 1) * slowest,
        fill=fill,
        sync=batches * sync_ms,
        update=max(updates),
        allreduce=max(allreduces),
        send=sent,
        batch_generator=batches * batch_generator_ms,
    )
