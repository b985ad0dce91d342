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
from metis.plan.plans import Plan, check
from metis.run.data import load_tokens
from metis.run.member import join, leave
from metis.run.ranks import CPU_RANKS, check_machine, run_ranks
from metis.run.results import summarise
from metis.run.settings import Backend, Job, RunResult, Training, check_widths

if TYPE_CHECKING:
    from metis.run.train import Measures

__all__ = ["CPU_RANKS", "launch"]

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
    (under torchrun on rank 0). With `out`, rank 0 writes `out/run.json`. Under torchrun every rank
    returns the same result. Raises `InputError` when the plan cannot run here and `RankError` when
    a rank fails.
    """
    training = training or Training()
    job = Job(training.apply(plan), training, seed, steps, backend)
    _check(job, world_size)
    if _under_torchrun():
        measures = _as_rank(job, on_step)
    else:
        check_machine(plan.world_size, backend, "the plan")
        options = {"backend": backend, "timeout_s": training.timeout_s, "on_report": on_step}
        measures = run_ranks(train_rank, plan.world_size, job, **options)[0]
    result = summarise(job, measures, scaled=job.plan.model != plan.model)
    if out is not None and os.environ.get("RANK", "0") == "0":
        out.mkdir(parents=True, exist_ok=True)
        (out / "run.json").write_bytes(msgspec.json.encode(result) + b"\n")
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
    )


def _under_torchrun() -> bool:
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def _as_rank(job: Job, on_step: OnStep) -> list[Measures]:
    """Run as the rank that torchrun made of this process."""
    rank, world = int(os.environ["RANK"]), job.plan.world_size
    timeout_s = job.training.timeout_s
    join(rank, world, backend=job.backend, timeout_s=timeout_s, where="env://")
    measures = train_rank(rank, on_step, job)
    leave()
    return measures


def _check(job: Job, world_size: int | None) -> None:
    """Raise `InputError` if the job is not consistent in itself."""
    check(job.plan)
    check_widths(job.plan)
    load_tokens(job.training.tokens, job.plan.model)
    needed = job.plan.world_size
    if job.steps < 1:
        raise InputError(f"steps is {job.steps}, expected 1 or more")
    given = world_size or int(os.environ.get("WORLD_SIZE", needed))
    if given != needed:
        raise InputError(
            f"the plan needs {needed} ranks, but the world size is {given};"
            f" use {needed}, or make a plan for {given} devices"
        )
