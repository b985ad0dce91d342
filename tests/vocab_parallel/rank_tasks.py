"""What ranks do in tests: train several jobs one after the other in one set of processes."""

from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from tests.ordered.group import Ordered
from tests.ordered.host_waits import HostWaits
from tests.ordered.lanes import Beside
from vocab_parallel.run.settings import Job
from vocab_parallel.run.sharded_ends import ShardedEnds
from vocab_parallel.run.tensor import Cut, joined
from vocab_parallel.run.train import Trainer, train

Array = NDArray[np.float64]


class Outcome(NamedTuple):
    losses: list[float]
    norms: list[float]
    weights: dict[str, Array]
    pieces: dict[str, dict[int, Array]]
    evaluation: float


def train_jobs(rank: int, report: object, jobs: list[Job]) -> list[Outcome]:
    """Return per job the losses and the whole model, put together on every rank."""
    return [_train(job) for job in jobs]


def train_and_check(
    rank: int, report: object, jobs: list[Job]
) -> list[tuple[Outcome, dict[str, float]]]:
    """Do the same, and return the errors of the sharded output layer beside it."""
    cpu = torch.device("cpu")
    return [(_train(job), Trainer(job, cpu).check_output()) for job in jobs]


def train_jobs_beside(rank: int, report: object, jobs: list[Job]) -> list[Outcome]:
    """Do the same with the statistics on a stream of their own, as on CUDA."""
    return [_train(job, beside=True) for job in jobs]


def _train(job: Job, *, beside: bool = False) -> Outcome:
    trainer = Trainer(job, torch.device("cpu"))
    if beside:
        side = Beside(ordered_world().desk)
        for executor in (trainer.executor, trainer.evaluator):
            assert isinstance(executor.ends, ShardedEnds)
            executor.ends.side = side
    steps = [trainer.step(number) for number in range(job.training.steps)]
    own = {
        name: (weight, trainer.store.main[name].double())
        for name, weight in trainer.store.weights.items()
    }
    every = [own] * job.world
    dist.all_gather_object(every, own)
    weights: dict[str, Array] = {}
    pieces: dict[str, dict[int, Array]] = {}
    parts: dict[str, dict[int, torch.Tensor]] = {}
    cuts: dict[str, Cut] = {}
    for held in every:
        for name, (weight, value) in held.items():
            if weight.real >= 0:
                pieces.setdefault(name, {})[weight.first] = value[: weight.real].numpy()
                continue
            cuts[name] = weight.cut or Cut(0)
            parts.setdefault(name, {})[cuts[name].place] = value
    for name, found in parts.items():
        weights[name] = joined([found[place] for place in sorted(found)], cuts[name]).numpy()
    for name, found in pieces.items():
        weights[name] = np.concatenate([found[first] for first in sorted(found)])
    losses = [step.loss for step in steps]
    norms = [step.gradient_norm for step in steps]
    return Outcome(losses, norms, weights, pieces, trainer.evaluate())


def ordered_world() -> Ordered:
    """Return the group of all ranks, which keeps NCCL's rules."""
    world = dist.group.WORLD
    assert isinstance(world, Ordered)
    return world


def posts_of(rank: int, report: object, jobs: list[Job]) -> list[list[str]]:
    """Return what a training and an evaluating iteration of each job post, on the ordered group."""
    desk = ordered_world().desk
    found: list[list[str]] = []
    for job in jobs:
        trainer = Trainer(job, torch.device("cpu"))
        for executor in (trainer.executor, trainer.evaluator):
            before = len(desk.posts)
            executor.iterate(trainer.batches(0))
            found.append([words.split(" with ")[0] for _, words in desk.posts[before:]])
    return found


def train_on_shared_ways(rank: int, report: object, job: Job) -> list[float]:
    """Train with all messages of a direction on one group of all ranks, as was once done."""
    trainer = Trainer(job, torch.device("cpu"))
    down, up = dist.new_group(), dist.new_group()
    ways = trainer.groups.ways
    trainer.groups.ways = {way: down if way[0] < way[1] else up for way in ways}
    return [trainer.step(number).loss for number in range(job.training.steps)]


def save_and_go_on(rank: int, report: object, jobs: list[Job]) -> list[list[float]]:
    """Train by each job's checkpoints, in one step more than was saved."""
    return [
        [step.loss for step in train(job, torch.device("cpu"), lambda *_: None)[0].steps]
        for job in jobs
    ]


def host_waits(rank: int, report: object, jobs: list[Job]) -> list[dict[str, int]]:
    """Return what reads a tensor on the host between the first pass and the last, per job."""
    found: list[dict[str, int]] = []
    for job in jobs:
        trainer = Trainer(job, torch.device("cpu"))
        batches = trainer.batches(0)
        for executor in (trainer.executor, trainer.evaluator):
            with HostWaits() as mode:
                executor.iterate(batches)
            found.append(dict(mode.found))
    return found
