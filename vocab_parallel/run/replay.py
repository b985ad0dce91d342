"""One rank of a large pipeline on one device: its exact program, with the other ranks imagined.

torch's `fake` process group answers every collective at once with nothing, so the numbers that are
computed mean nothing, but what is computed, allocated and freed is what the rank would do. Busy
time and peak memory per rank follow, and from all ranks' pass times the simulator's iteration time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist

from common.errors import InputError
from vocab_parallel.run.launch import rank_figures
from vocab_parallel.run.settings import Job, RankFigures
from vocab_parallel.run.train import Measures, Trainer

STEPS = 4
"""Iterations per rank; the first warms up."""


def ranks_to_replay(job: Job) -> list[int]:
    """Return the ranks that `training.replay_rank` asks for."""
    ranks, wanted = job.plan.schedule.ranks, job.training.replay_rank
    if wanted is None or not -1 <= wanted < ranks:
        raise InputError(f"training.replay_rank is {wanted}, expected -1 (all) to {ranks - 1}")
    return [*range(ranks)] if wanted < 0 else [wanted]


def replay(
    job: Job, ranks: Sequence[int], device: torch.device, on_rank: Callable[[], None]
) -> list[RankFigures]:
    """Replay some ranks of a pipeline one after the other; needs no other process."""
    done: list[RankFigures] = []
    for rank in ranks:
        done.append(rank_figures(_one(job, rank, device)))
        on_rank()
    return done


def _one(job: Job, rank: int, device: torch.device) -> Measures:
    # Registers the backend and has its store; there is no public name for either.
    from torch.testing._internal.distributed.fake_pg import FakeStore

    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    dist.init_process_group(
        "fake", store=FakeStore(), rank=rank * job.plan.tensor, world_size=job.world
    )
    try:
        trainer = Trainer(job, device)
        steps = [trainer.step(number) for number in range(STEPS)]
        return Measures(0, steps, None, torch.cuda.max_memory_allocated() if cuda else None, {})
    finally:
        dist.destroy_process_group()
