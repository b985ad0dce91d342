"""Train by a plan on real ranks.

Started plainly, `launch` starts the ranks on this machine itself; under torchrun (RANK and
WORLD_SIZE are set) it runs as the one rank that it is.
"""

from __future__ import annotations

import os
import platform
from collections import defaultdict
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import msgspec

from common.errors import InputError
from common.ranks import Backend
from common.ranks import launch as launch_ranks
from vocab_parallel.inputs.experiment import Pipeline, Training
from vocab_parallel.plan.holdings import Holdings
from vocab_parallel.plan.plans import Plan, check
from vocab_parallel.run.data import load_tokens
from vocab_parallel.run.device_queues import open_device_queues
from vocab_parallel.run.settings import Job, RankFigures, RunResult
from vocab_parallel.simulate.memory import static_bytes

if TYPE_CHECKING:
    from vocab_parallel.run.train import Measures

OnStep = Callable[[int, float], None]


def launch(
    plan: Plan,
    training: Training,
    *,
    world_size: int | None = None,
    backend: Backend = "gloo",
    seed: int = 0,
    on_step: OnStep = lambda step, loss: None,
) -> RunResult:
    """Train and return losses and times.

    `world_size`, where given, must be pipeline ranks x replicas. `on_step(step, loss)` is called as
    steps finish (under torchrun on rank 0). Under torchrun every rank returns the same result.
    Raises `InputError` when the plan cannot run here and `RankError` when a rank fails.
    """
    check(plan)
    job = Job(plan, training, seed, backend)
    _check_model(job)
    _check_holdings(job)
    _check_world(job, world_size)
    load_tokens(training.tokens, plan.model)
    _check_kernel(job)
    if backend == "nccl":
        open_device_queues(plan.schedule, training.data_parallel, plan.tensor)
    if training.checkpoint and Path(training.checkpoint).is_file():
        raise InputError(f"training.checkpoint is {training.checkpoint!r}, a file; name a folder")
    measures = launch_ranks(
        train_rank,
        job.world,
        job,
        backend=backend,
        timeout_s=training.timeout_s,
        on_report=on_step,
        needed_bytes=_static_bytes(job),
    )
    return _summary(job, measures)


def train_rank(rank: int, report: OnStep, job: Job) -> list[Measures]:
    """Do one rank's whole work and return what all ranks measured."""
    import torch

    from vocab_parallel.run.train import train

    cuda = job.backend == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    return train(job, device, report)


def _check_world(job: Job, world_size: int | None) -> None:
    given = world_size or int(os.environ.get("WORLD_SIZE", job.world))
    if given != job.world:
        raise InputError(
            f"{given} ranks were given, but the plan has {job.plan.schedule.ranks} pipeline ranks"
            f" x {job.plan.tensor} of tensor_parallel x {job.training.data_parallel} replicas ="
            f" {job.world}; set pipeline.ranks, pipeline.tensor_parallel or training.data_parallel"
        )


def _check_model(job: Job) -> None:
    """Refuse what is planned alone."""
    model = job.plan.model
    if model.rope_factor <= 0:
        raise InputError(
            "model.rope_factor is -1 (a scaling of rotations that is planned alone); set it to 1,"
            " without scaling, to train"
        )
    capped = model.logit_softcap > 0
    if capped and (job.training.label_smoothing or job.training.kernel == "triton"):
        raise InputError(
            f"model.logit_softcap is {model.logit_softcap:g}, which goes neither with"
            " training.label_smoothing nor with the triton kernel; leave them out"
        )


def _check_holdings(job: Job) -> None:
    """Refuse settings that the plan's memory and times were not worked out for."""
    if job.training.gradients == "dtype":
        raise InputError(
            "training.gradients is 'dtype', which is planned alone; leave it at 'float32' to run"
        )
    held = job.plan.holdings
    for field, table in (("shard_optimizer", "training"), ("sequence_parallel", "pipeline")):
        if getattr(held, field):
            raise InputError(f"{table}.{field} is true, which is planned alone; set it to false")
    planned, asked = (
        msgspec.structs.asdict(one) for one in (held, Holdings.of(job.training, Pipeline()))
    )
    for field, value in asked.items():
        if value != planned[field]:
            name = "data_parallel" if field == "replicas" else field
            raise InputError(
                f"training.{name} is {value!r}, but the plan was made for {planned[field]!r}; plan"
                " again"
            )


def _check_kernel(job: Job) -> None:
    """Refuse the Triton kernel where it cannot run."""
    if job.training.kernel == "triton" and job.plan.schedule.output_parts > 1:
        raise InputError(
            "training.kernel is 'triton', which has no form for an S of two parts (method naive);"
            " leave it at 'torch'"
        )
    if job.training.kernel == "triton" and (
        job.backend != "nccl" or job.training.dtype == "float64" or find_spec("triton") is None
    ):
        raise InputError(
            "training.kernel is 'triton', which needs the package triton, GPUs (--backend nccl) and"
            " a training.dtype below float64; leave it at 'torch'"
        )


def _static_bytes(job: Job) -> float:
    """Return the bytes of weights, gradients and moments of all ranks together."""
    held = sum(static_bytes(job.plan, rank) for rank in range(job.plan.schedule.ranks))
    return held * job.plan.tensor * job.training.data_parallel


def _summary(job: Job, measures: list[Measures]) -> RunResult:
    steps = measures[0].steps
    return RunResult(
        experiment=job.plan.experiment,
        method=job.plan.method,
        backend=job.backend,
        device=_device_name(job.backend),
        dtype=job.training.dtype,
        world_size=job.world,
        seed=job.seed,
        first_step=measures[0].first,
        passed_over=measures[0].passed_over,
        losses=tuple(step.loss for step in steps),
        gradient_norms=tuple(step.gradient_norm for step in steps),
        iteration_s=tuple(step.iteration_s for step in steps),
        evaluation=measures[0].evaluation,
        numerics=measures[0].numerics,
        ranks=tuple(rank_figures(rank) for rank in measures),
    )


def rank_figures(rank: Measures) -> RankFigures:
    """Return a rank's medians; the first step warms up where there are more."""
    steps = rank.steps[1:] or rank.steps
    times: dict[str, list[float]] = defaultdict(list)
    for step in steps:
        parts: dict[tuple[str, int], float] = defaultdict(float)
        for span in step.spans:  # a pass that waits in its middle has several
            parts[span.name, span.batch] += span.duration_ms / 1e3
        for (name, _), seconds in parts.items():
            times[name].append(seconds)
    busy = [sum(span.duration_ms for span in step.spans) / 1e3 for step in steps]
    return RankFigures(
        passes={name: median(values) for name, values in sorted(times.items())},
        busy_s=median(busy) if busy else 0.0,
        update_s=median([step.update_s for step in steps]) if steps else 0.0,
        peak_bytes=rank.peak_bytes,
    )


def _device_name(backend: str) -> str:
    if backend == "nccl":
        import torch

        return torch.cuda.get_device_name()
    return f"CPU {platform.machine()}"
