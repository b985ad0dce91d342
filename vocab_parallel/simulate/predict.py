"""A plan in figures: iteration time, MFU, and per rank busy time and memory."""

import msgspec

from vocab_parallel.inputs.model import iteration_flops
from vocab_parallel.plan.check import peak_live
from vocab_parallel.plan.passes import Kind
from vocab_parallel.plan.plans import Plan
from vocab_parallel.plan.play import Played, play
from vocab_parallel.simulate.memory import allocated, reserved
from vocab_parallel.simulate.times import Times, pass_times


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan will cost, in seconds, fractions and bytes."""

    iteration_s: float
    mfu: float
    """FLOP of the model over time x ranks x the machine's peak."""
    busy: tuple[float, ...]
    """Part of the iteration that each rank computes."""
    allocated: tuple[float, ...]
    reserved: tuple[float, ...]
    live: tuple[int, ...]
    """Most micro-batches (V-Half: half-stage chunks) that each rank holds."""
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
    tail = plan.machine.step_ms * 1e-3 if step_s is None else step_s
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
        live=peak_live(plan.schedule),
        played=played,
    )


def mfu(plan: Plan, seconds: float, peak_tflops: float | None = None) -> float:
    """Return the model FLOP utilisation of an iteration time (paper §6.2, full attention)."""
    sequences = plan.schedule.batches * plan.batch_size
    peak = (peak_tflops or plan.machine.peak_tflops) * 1e12
    ranks = plan.schedule.ranks * plan.tensor
    return iteration_flops(plan.model, sequences) / (ranks * seconds * peak)
