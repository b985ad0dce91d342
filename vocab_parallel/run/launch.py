"""Train by a plan on real ranks.

Started plainly, `launch` starts the ranks on this machine itself; under torchrun (RANK and
WORLD_SIZE are set) it runs as the one rank that it is.
"""

from __future__ import annotations

import logging
import os
import platform
from collections import defaultdict
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from common.errors import InputError
from vocab_parallel.inputs.experiment import Training
from vocab_parallel.plan.plans import Plan, check, parameters
from vocab_parallel.run.data import load_tokens
from vocab_parallel.run.member import failure_of, join, leave
from vocab_parallel.run.ranks import check_machine, check_memory, run_ranks
from vocab_parallel.run.settings import Backend, Job, RankError, RankFigures, RunResult

if TYPE_CHECKING:
    from vocab_parallel.run.train import Measures

OnStep = Callable[[int, float], None]
_log = logging.getLogger(__name__)


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
    _check_world(job, world_size)
    load_tokens(training.tokens, plan.model)
    _check_kernel(job)
    if training.checkpoint and Path(training.checkpoint).is_file():
        raise InputError(f"training.checkpoint is {training.checkpoint!r}, a file; name a folder")
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        measures = _as_rank(job, on_step)
    else:
        check_machine(job.world, backend, "the plan")
        check_memory(_static_bytes(job), backend)
        options = {"backend": backend, "timeout_s": training.timeout_s, "on_report": on_step}
        measures = run_ranks(train_rank, job.world, job, **options)[0]
    return _summary(job, measures)


def train_rank(rank: int, report: OnStep, job: Job) -> list[Measures]:
    """Do one rank's whole work and return what all ranks measured."""
    import torch

    from vocab_parallel.run.train import train

    cuda = job.backend == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    return train(job, device, report)


def _as_rank(job: Job, on_step: OnStep) -> list[Measures]:
    """Run as the rank that torchrun made of this process."""
    rank, timeout_s = int(os.environ["RANK"]), job.training.timeout_s
    try:
        join(rank, job.world, backend=job.backend, timeout_s=timeout_s, where="env://")
        measures = train_rank(rank, on_step, job)
        leave()
    except InputError:
        raise
    except Exception as error:
        failure = failure_of(rank, error)
        _log.debug("rank %d %s\n%s", rank, failure.reason, failure.details)
        why = f"{failure.reason}; torchrun says which rank was first, and stops all"
        if failure.waited:
            why = f"waited {timeout_s:g} s (training.timeout_s) in vain for a rank that hangs"
        raise RankError(f"rank {rank} {why}", out_of_memory=failure.out_of_memory) from error
    return measures


def _check_world(job: Job, world_size: int | None) -> None:
    given = world_size or int(os.environ.get("WORLD_SIZE", job.world))
    if given != job.world:
        raise InputError(
            f"{given} ranks were given, but the plan has {job.plan.schedule.ranks} pipeline ranks"
            f" x {job.plan.tensor} of tensor_parallel x {job.training.data_parallel} replicas ="
            f" {job.world}; set pipeline.ranks, pipeline.tensor_parallel or training.data_parallel"
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
    each = {"float32": 16, "float64": 32, "bfloat16": 18}[job.training.dtype]
    ranks = range(job.plan.schedule.ranks)
    held = sum(parameters(job.plan, rank) for rank in ranks)
    return float(each * held * job.plan.tensor * job.training.data_parallel)


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
