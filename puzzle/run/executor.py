"""A schedule's program carried out by one rank: forward, backward and updates of several models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from puzzle.plan.passes import Pass, Schedule
from puzzle.run.groups import Groups
from puzzle.run.links import Directions, Mail, Message
from puzzle.run.stage import Stage, Tokens
from puzzle.run.update import Update

Finish = Callable[[str, int, Tensor], Tensor | None]
"""What the last stage does with a model's micro-batch: returns the loss to train on, if any."""


class Work(NamedTuple):
    """What a schedule works on: the models' stages, micro-batches, and the last stage's task."""

    stages: Mapping[str, Stage]
    batches: Sequence[Tokens]
    finish: Finish
    updates: Mapping[str, Update]
    step: int = 0
    updated: Callable[[str], None] = lambda model: None
    """Called when a model's update is over on this rank: its weights are final."""


def execute(
    schedule: Schedule, groups: Groups, directions: Directions, work: Work, dtype: torch.dtype
) -> None:
    """Run this rank's program; updates happen where the schedule has them."""
    rows, length = work.batches[0].ids.shape
    device = work.batches[0].ids.device

    def blank(model: str) -> Tensor:
        width = work.stages[model].model.hidden
        return torch.empty(rows, length, width, dtype=dtype, device=device)

    runner = _Runner(schedule, Mail(schedule, groups, directions, blank), groups, work)
    with nullcontext() if work.updates else torch.no_grad():
        for item in schedule.programs[groups.place.stage]:
            runner.run(item)
    runner.mail.sender.drain()


class _Runner:
    def __init__(self, schedule: Schedule, mail: Mail, groups: Groups, work: Work) -> None:
        self.schedule, self.mail, self.work = schedule, mail, work
        self.me = groups.place.stage
        self.live: dict[Pass, tuple[Tensor | None, Tensor]] = {}

    def run(self, item: Pass) -> None:
        if item.kind == "F":
            self.forward(item)
        elif item.kind == "B":
            self.backward(item)
        elif item.kind == "R":
            self.work.updates[item.model].reduce()
        elif item.kind == "N":
            self.work.updates[item.model].sum_squares()
        else:
            self.work.updates[item.model].step(self.work.step)
            self.work.updated(item.model)

    def forward(self, item: Pass) -> None:
        stage, number = self.work.stages[item.model], self.schedule.stage(item.model, self.me)
        x = None
        if number:
            x = self.mail.take(number - 1, Message("F", item.model, item.batch))
            if self.work.updates:
                x.requires_grad_(True)
        y = stage.forward(x, self.work.batches[item.batch])
        if number == self.schedule.stages - 1:
            loss = self.work.finish(item.model, item.batch, y)
            if loss is not None:
                self.live[item] = x, loss * self.work.updates[item.model].scale.value
            return
        if self.work.updates:
            self.live[item] = x, y
        self.mail.hand_on(item, y.detach())

    def backward(self, item: Pass) -> None:
        number = self.schedule.stage(item.model, self.me)
        x, y = self.live.pop(Pass("F", item.model, item.batch))
        if number == self.schedule.stages - 1:
            y.backward()
        else:
            y.backward(self.mail.take(number + 1, Message("B", item.model, item.batch)))
        if x is not None:
            assert x.grad is not None
            self.mail.hand_on(item, x.grad)
