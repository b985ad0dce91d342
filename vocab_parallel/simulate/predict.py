"""A plan in figures: iteration time, MFU, and per rank busy time and memory."""

import msgspec

from common.record import Metric
from vocab_parallel.inputs.model import iteration_flops
from vocab_parallel.plan.check import peak_live
from vocab_parallel.plan.passes import Kind
from vocab_parallel.plan.plans import Plan
from vocab_parallel.plan.play import Played, play
from vocab_parallel.simulate.memory import GIB, allocated, needed, reserved
from vocab_parallel.simulate.times import Times, pass_times, replica_seconds


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan will cost, in seconds, fractions and bytes."""

    iteration_s: float
    mfu: float
    """FLOP of the model over time x ranks x the machine's peak."""
    busy: tuple[float, ...]
    """Part of the iteration that each rank computes."""
    allocated: tuple[float, ...]
    reserved: tuple[float, ...]
    needed: tuple[float, ...]
    """Allocated, and what the machine keeps from tensors (its `reserve`)."""
    live: tuple[int, ...]
    """Most micro-batches (of several chunks: chunks) that each rank holds."""
    played: Played


def predict(
    plan: Plan,
    times: Times | None = None,
    *,
    step_s: float | None = None,
    meets: frozenset[Kind] = frozenset(),
) -> Prediction:
    """Play a plan's schedule; `times` and `step_s` stand in for the machine's model.

    At passes of the kinds in `meets` all ranks wait for each other.
    """
    given = times or pass_times(plan)
    played = play(plan.schedule, given.passes, given.delays, meets=meets)
    tail = plan.machine.step_ms * 1e-3 + replica_seconds(plan) if step_s is None else step_s
    seconds = played.seconds + tail
    busy = [
        sum(end - start for start, end in zip(*spans, strict=True)) / seconds
        for spans in zip(played.starts, played.ends, strict=True)
    ]
    return Prediction(
        iteration_s=seconds,
        mfu=mfu(plan, seconds),
        busy=tuple(busy),
        allocated=allocated(plan),
        reserved=reserved(plan),
        needed=needed(plan),
        live=peak_live(plan.schedule),
        played=played,
    )


A100_PEAKS = (312.0, 320.0)
"""TFLOP/s in 16 bit that the artifact (its data sheet's) and the paper divide by."""


def mfu(plan: Plan, seconds: float, peak_tflops: float | None = None) -> float:
    """Return the model FLOP utilisation of an iteration time (paper §6.2, full attention)."""
    sequences = plan.schedule.batches * plan.batch_size
    peak = (peak_tflops or plan.machine.peak_tflops) * 1e12
    ranks = plan.schedule.ranks * plan.tensor
    return iteration_flops(plan.model, sequences) / (ranks * seconds * peak)


def utilisation(plan: Plan, seconds: float) -> tuple[Metric, ...]:
    """Return the MFU by the machine's peak, and on an A100 by both peaks that were published."""
    found = {"mfu": plan.machine.peak_tflops}
    if plan.machine.peak_tflops in A100_PEAKS:
        found |= {f"mfu.of_{peak:g}": peak for peak in A100_PEAKS}
    return tuple(
        Metric(name=name, value=100 * mfu(plan, seconds, peak), unit="%")
        for name, peak in found.items()
    )


def metrics(plan: Plan, prediction: Prediction) -> tuple[Metric, ...]:
    """Return a prediction as metrics; per-rank figures are the samples, rank by rank."""
    seconds = prediction.iteration_s
    return (
        Metric(name="iteration.time", value=seconds, unit="s"),
        *utilisation(plan, seconds),
        _most("memory.allocated", prediction.allocated),
        _most("memory.reserved", prediction.reserved),
        _most("memory.needed", prediction.needed),
        Metric(
            name="busy",
            value=100 * min(prediction.busy),
            unit="%",
            samples=tuple(100 * part for part in prediction.busy),
        ),
        Metric(
            name="live",
            value=max(prediction.live),
            unit="1",
            samples=tuple(map(float, prediction.live)),
        ),
    )


def _most(name: str, values: tuple[float, ...]) -> Metric:
    sizes = tuple(value / GIB for value in values)
    return Metric(name=name, value=max(sizes), unit="GiBy", samples=sizes)
