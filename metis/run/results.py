"""From the ranks' spans to one result: per stage the median of its slowest replica."""

from __future__ import annotations

import platform
from statistics import median
from typing import TYPE_CHECKING

from metis.run.layout import tensor_ranks
from metis.run.settings import Job, RunResult, StageTime
from metis.simulate.timeline import Finish, Pass, Timeline

if TYPE_CHECKING:
    from common.clock import Span
    from metis.plan.plans import Stage
    from metis.run.train import Measures


def summarise(job: Job, measures: list[Measures], *, scaled: bool) -> RunResult:
    """Put losses and measured times beside the plan's predictions."""
    steps, plan = measures[0].steps, job.plan
    return RunResult(
        experiment=plan.experiment,
        model=plan.model,
        scaled=scaled,
        backend=job.backend,
        device=device_name(job.backend),
        dtype=job.training.dtype,
        world_size=plan.world_size,
        seed=job.seed,
        first_step=measures[0].first,
        losses=tuple(step.loss for step in steps),
        gradient_norms=tuple(step.gradient_norm for step in steps),
        iteration_ms=tuple(step.iteration_ms for step in steps),
        predicted_iteration_ms=plan.cost_ms,
        stages=tuple(_stage(number, stage, measures) for number, stage in enumerate(plan.stages)),
        timeline=_timeline(plan.stages, measures),
    )


def _stage(number: int, stage: Stage, measures: list[Measures]) -> StageTime:
    ranks = measures[stage.first_rank : stage.first_rank + stage.devices]
    forward, backward = max(((_typical(r, "F"), _typical(r, "B")) for r in ranks), key=sum)
    peaks = [rank.peak_memory_mb for rank in ranks if rank.peak_memory_mb is not None]
    return StageTime(
        stage=number,
        forward_ms=forward,
        backward_ms=backward,
        predicted_ms=stage.execution_ms,
        allreduce_ms=max(_typical(rank, "all-reduce") for rank in ranks),
        predicted_allreduce_ms=stage.allreduce_ms,
        update_ms=max(_typical(rank, "update") for rank in ranks),
        predicted_update_ms=stage.update_ms,
        peak_memory_mb=max(peaks) if peaks else None,
        predicted_memory_mb=stage.memory_mb,
    )


def _typical(rank: Measures, name: str) -> float:
    """Return the median span of that name; the first step warms up where there are more."""
    steps = rank.steps[1:] or rank.steps
    return median(span.duration_ms for step in steps for span in step.spans if span.name == name)


def _timeline(stages: tuple[Stage, ...], measures: list[Measures]) -> Timeline:
    """Return the last step as the first replica of every stage lived it."""
    passes, finishes = [], []
    for number, stage in enumerate(stages):
        spans: list[Span] = measures[tensor_ranks(stage, 0)[0]].steps[-1].spans
        for name, batch, start, end in spans:
            if name == "F" or name == "B":
                passes.append(Pass(number, name, batch, start, end))
        by_name = {span.name: span for span in spans}
        reduce, update = by_name["all-reduce"], by_name["update"]
        finishes.append(Finish(number, reduce.start_ms, update.start_ms, update.end_ms))
    return Timeline(tuple(passes), (), tuple(finishes))


def device_name(backend: str) -> str:
    """Return the name of what the ranks compute on."""
    if backend == "nccl":
        import torch

        return torch.cuda.get_device_name()
    return f"CPU {platform.machine()}"
