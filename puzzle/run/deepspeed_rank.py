"""One rank of a run by the baseline."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist

from puzzle.inputs.model import parameters
from puzzle.run.deepspeed_engine import Baseline
from puzzle.run.deepspeed_models import deepspeed
from puzzle.run.readers import readers_of
from puzzle.run.settings import Job, Moved, RunResult, StepFigures


def run_baseline(rank: int, report: Callable[[StepFigures], None], job: Job) -> RunResult:
    """Do one rank's whole work of the baseline; only rank 0 reports."""
    cuda = job.backend == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    with deepspeed() as module:
        module.init_distributed(dist_backend=job.backend)
    readers = readers_of(job)
    baseline = Baseline(job, device, readers)
    exact = [baseline.is_exact(readers["actor"])] * baseline.world
    dist.all_gather_object(exact, exact[0])
    steps: list[StepFigures] = []
    for number in range(job.running.steps):
        steps.append(baseline.step(number))
        if rank == 0:
            report(steps[-1])
    received = [0] * baseline.world
    dist.all_gather_object(received, baseline.received())
    width = 4 if job.plan.dtype == "float32" else 2
    size = width * parameters(job.plan.actor)
    planned = round((baseline.world - 1) / baseline.world * size)
    moved = Moved(
        engine="deepspeed-zero3",
        received=tuple(received),
        planned=(planned,) * baseline.world,
        messages=(1,) * baseline.world,
        seconds=min(step.switch_s for step in steps),
        exact=all(exact),
    )
    baseline.rewards.close()
    return RunResult(
        experiment=job.plan.experiment,
        backend=job.backend,
        device=torch.cuda.get_device_name() if cuda else "CPU",
        world_size=baseline.world,
        seed=job.seed,
        first_step=0,
        steps=tuple(steps),
        switches=(moved,),
        answers=tuple(baseline.texts()[:4]),
        digest=baseline.digest.hexdigest(),
        peak_bytes=torch.cuda.max_memory_allocated() if cuda else None,
        prompts=len(baseline.prompts.ids),
        prompts_left_out=baseline.prompts.left_out,
        prompts_cut=baseline.prompts.cut,
    )
