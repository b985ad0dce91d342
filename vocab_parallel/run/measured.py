"""Measured beside predicted: a run's figures, and the simulation from the run's own pass times."""

import os
from collections.abc import Callable, Sequence
from statistics import mean

from common.record import Metric
from common.spread import cores
from vocab_parallel.plan.passes import Kind
from vocab_parallel.plan.plans import Plan
from vocab_parallel.run.settings import Job, RankFigures, RunResult
from vocab_parallel.simulate.memory import GIB
from vocab_parallel.simulate.predict import Prediction, predict, utilisation
from vocab_parallel.simulate.times import Times

KINDS: tuple[Kind, ...] = ("F", "B", "W", "S", "T", "IF", "IB")


def measured_times(plan: Plan, ranks: Sequence[RankFigures]) -> Times:
    """Return all ranks' median pass times; waiting is not in them, so links have no delay."""
    passes: list[dict[tuple[Kind, int], float]] = []
    for rank in range(plan.schedule.ranks):
        found = ranks[rank * plan.tensor if len(ranks) > plan.schedule.ranks else rank].passes
        passes.append(
            {
                (kind, chunk): found.get(f"{kind}{chunk}", 0.0)
                for kind in KINDS
                for chunk in range(plan.schedule.parts(kind))
            }
        )
    return Times(tuple(passes), {})


def predicted(plan: Plan, result: RunResult) -> Prediction:
    """Return what the simulator makes of the measured pass times."""
    update = max(rank.update_s for rank in result.ranks)
    times = measured_times(plan, result.ranks)
    # Without streams a rank waits in S for the others' statistics.
    blocks = result.backend == "gloo" and plan.schedule.barriers > 0
    meets: frozenset[Kind] = frozenset({"S"} if blocks else ())
    return predict(plan, times, step_s=update, meets=meets)


def enough_cores(result: RunResult) -> bool:
    """Say whether every rank had a core (or a GPU) of its own."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", result.world_size))
    return result.backend == "nccl" or cores() >= local


def run_metrics(plan: Plan, result: RunResult) -> tuple[Metric, ...]:
    """Return a run as metrics; samples are steps, or ranks where a figure belongs to ranks."""
    metrics = [
        Metric(
            name="iteration.time",
            value=result.median_iteration_s,
            unit="s",
            samples=result.iteration_s[1:],
            warmups=result.iteration_s[:1],
        )
        if result.iteration_s
        else None,
        Metric(name="loss.evaluation", value=result.evaluation, unit="nat")
        if result.evaluation is not None
        else None,
        Metric(name="cores.enough", value=int(enough_cores(result)), unit="1"),
        *(
            Metric(name=f"numerics.{name}", value=value, unit="1")
            for name, value in result.numerics.items()
        ),
    ]
    if result.losses:
        metrics += _of_steps(plan, result)
    return tuple(metric for metric in metrics if metric is not None)


def _of_steps(plan: Plan, result: RunResult) -> list[Metric]:
    found = [
        Metric(name="loss.first", value=result.losses[0], unit="nat"),
        Metric(name="loss.last", value=result.losses[-1], unit="nat", samples=result.losses),
        Metric(name="loss.late", value=mean(result.losses[-50:]), unit="nat"),
        Metric(name="gradient.norm", value=result.gradient_norms[-1], unit="1"),
        Metric(name="iteration.predicted", value=predicted(plan, result).iteration_s, unit="s"),
        Metric(
            name="busy",
            value=max(rank.busy_s for rank in result.ranks),
            unit="s",
            samples=tuple(rank.busy_s for rank in result.ranks),
        ),
    ]
    if result.backend == "nccl":
        found += utilisation(plan, result.median_iteration_s)
    peaks = tuple(r.peak_bytes / GIB for r in result.ranks if r.peak_bytes is not None)
    if peaks:
        found.append(Metric(name="memory.allocated", value=max(peaks), unit="GiBy", samples=peaks))
    return found


def run_summary(plan: Plan, result: RunResult) -> str:
    """Return a run in one line."""
    if not result.losses:
        return f"nothing to do: a checkpoint of step {result.first_step} is there"
    crowded = "" if enough_cores(result) else " (ranks share cores, so times say little)"
    passed = f"; passed over: {'; '.join(result.passed_over)}" if result.passed_over else ""
    return (
        f"{len(result.losses)} steps on {result.world_size} {result.backend} ranks by"
        f" {plan.method}: loss {result.losses[0]:.6f} to {result.losses[-1]:.6f},"
        f" {result.median_iteration_s * 1e3:.1f} ms per iteration, simulated from its pass times"
        f" {predicted(plan, result).iteration_s * 1e3:.1f} ms{crowded}{passed}"
    )


def replay_ranks(job: Job, on_rank: Callable[[], None]) -> tuple[tuple[Metric, ...], str]:
    """Replay ranks on this machine's GPU, or its CPU, and return metrics and a summary.

    On a CPU each has the share of the cores that it would have beside the others.
    """
    import torch

    from vocab_parallel.run.replay import ranks_to_replay, replay

    cuda = torch.cuda.is_available()
    wanted = ranks_to_replay(job)
    if not cuda:
        torch.set_num_threads(max(1, cores() // job.plan.schedule.ranks))
    found = replay(job, wanted, torch.device("cuda" if cuda else "cpu"), on_rank)
    where = torch.cuda.get_device_name() if cuda else "CPU"
    busy = tuple(rank.busy_s for rank in found)
    metrics = [Metric(name="busy", value=max(busy), unit="s", samples=busy)]
    summary = (
        f"replayed rank {', '.join(map(str, wanted))} on {where}: busy up to {max(busy):.3f} s"
    )
    peaks = tuple(rank.peak_bytes / GIB for rank in found if rank.peak_bytes is not None)
    if peaks:
        metrics.append(
            Metric(name="memory.allocated", value=max(peaks), unit="GiBy", samples=peaks)
        )
        summary += f", allocated up to {max(peaks):.2f} GiB"
    if len(found) == job.plan.schedule.ranks:
        update = max(rank.update_s for rank in found)
        times = measured_times(job.plan, found)
        seconds = predict(job.plan, times, step_s=update).iteration_s
        metrics.append(Metric(name="iteration.predicted", value=seconds, unit="s"))
        summary += f"; simulated from all pass times {seconds:.3f} s per iteration"
    return tuple(metrics), summary
