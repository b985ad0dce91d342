"""What ranks do in tests: train several jobs one after the other in one set of processes."""

from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from vocab_parallel.run.settings import Job
from vocab_parallel.run.tensor import Cut, joined
from vocab_parallel.run.train import Trainer

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


def _train(job: Job) -> Outcome:
    trainer = Trainer(job, torch.device("cpu"))
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
