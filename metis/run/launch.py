"""Train by a plan on real ranks and put what was measured beside what was predicted.

Started plainly, `launch` starts the ranks on this machine itself; under torchrun (RANK and
WORLD_SIZE are set) it runs as the one rank that it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from common.errors import InputError
from common.files import write
from common.provenance import is_first_rank
from common.ranks import Backend
from common.ranks import launch as launch_ranks
from metis.plan.plans import Plan, check
from metis.run.data import load_tokens
from metis.run.results import summarise
from metis.run.settings import Job, RunResult, Training, check_widths

if TYPE_CHECKING:
    from metis.run.train import Measures

OnStep = Callable[[int, float], None]


def launch(
    plan: Plan,
    *,
    world_size: int | None = None,
    backend: Backend = "gloo",
    steps: int = 5,
    seed: int = 0,
    out: Path | None = None,
    training: Training | None = None,
    on_step: OnStep = lambda step, loss: None,
) -> RunResult:
    """Train for `steps` global batches and return losses and times.

    `world_size`, where given, must be the plan's. `on_step(step, loss)` is called as steps finish
    (under torchrun on rank 0). With `out`, rank 0 writes `out/run.json`, and
    checkpoints below `out/checkpoints` if `training` asks for them. Under torchrun every rank
    returns the same result. Raises `InputError` when the plan cannot run here and `RankError` when
    a rank fails.
    """
    training = training or Training()
    home = out / "checkpoints" if out is not None and training.checkpoint_every else None
    job = Job(training.apply(plan), training, seed, steps, backend, home)
    _check(job, world_size)
    world, timeout_s = plan.world_size, training.timeout_s
    options = {"backend": backend, "timeout_s": timeout_s, "on_report": on_step}
    measures = launch_ranks(train_rank, world, job, **options)
    result = summarise(job, measures, scaled=job.plan.model != plan.model)
    if out is not None and is_first_rank():
        write(out / "run.json", msgspec.json.encode(result) + b"\n")
    return result


def train_rank(rank: int, report: OnStep, job: Job) -> list[Measures]:
    """Do one rank's whole work and return what all ranks measured."""
    import torch

    from metis.run.train import train

    cuda = job.backend == "nccl"
    return train(
        job.plan,
        rank,
        training=job.training,
        seed=job.seed,
        steps=job.steps,
        device=torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu"),
        report=report,
        checkpoints=job.checkpoints,
    )


def _check(job: Job, world_size: int | None) -> None:
    """Raise `InputError` if the job is not consistent in itself."""
    check(job.plan)
    check_widths(job.plan)
    load_tokens(job.training.tokens, job.plan.model)
    if job.training.checkpoint_every and job.checkpoints is None:
        raise InputError(
            f"training.checkpoint_every is {job.training.checkpoint_every}, but there is no folder"
            " to write to; give one (out), or 0"
        )
    needed = job.plan.world_size
    if job.steps < 1:
        raise InputError(f"steps is {job.steps}, expected 1 or more")
    given = world_size or int(os.environ.get("WORLD_SIZE", needed))
    if given != needed:
        raise InputError(
            f"the plan needs {needed} ranks, but the world size is {given};"
            f" use {needed}, or make a plan for {given} devices"
        )
