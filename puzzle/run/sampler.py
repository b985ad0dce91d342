"""Answers of all replicas to a batch of prompts, in the generation layout."""

from __future__ import annotations

import torch

from puzzle.run.data import Asked, batch_of
from puzzle.run.decode import Decoding
from puzzle.run.dynamic import Batch
from puzzle.run.generate import Generator, Prompts, Special, gather_replicas
from puzzle.run.groups import Groups
from puzzle.run.links import Directions
from puzzle.run.settings import Job
from puzzle.run.stage import Stage


class Sampler:
    """One rank's part in drawing answers; all ranks draw the same batches."""

    def __init__(
        self,
        job: Job,
        groups: Groups,
        directions: Directions,
        device: torch.device,
        special: Special,
    ) -> None:
        self.job, self.groups, self.directions = job, groups, directions
        self.device, self.special = device, special
        self.dtype: torch.dtype = getattr(torch, job.plan.dtype)
        self.decoding: Decoding = "graph" if job.running.cuda_graphs else "grown"

    def prompts_of(self, asked: Asked) -> Prompts:
        """Return this generation replica's part of a batch of prompts."""
        work, place = self.job.plan.work, self.groups.place
        ids, valid = batch_of(asked.prompts.ids, self.special.pad, work.prompt, asked.order)
        size = work.batch // self.groups.layout.data
        rows = slice(place.replica * size, (place.replica + 1) * size)
        numbers = torch.arange(rows.start, rows.stop) + asked.number * work.batch
        found = (torch.from_numpy(ids[rows]), torch.from_numpy(valid[rows]), numbers)
        return Prompts(*(x.to(self.device) for x in found))

    def draw(self, stage: Stage, asked: Asked) -> Batch:
        """Return all replicas' answers by the weights of `stage`, on every rank."""
        generator = Generator(
            stage, self.groups, self.directions, self.job.plan.work, self.job.running.sampling,
            self.special, self.job.seed, self.dtype, self.decoding,
        )  # fmt: skip
        whole = gather_replicas(generator.run(self.prompts_of(asked)), self.groups)
        rows = [asked.prompts.rows[at] for at in asked.order]
        return Batch(whole, whole.log_probs.new_empty(0), rows)
