"""One iteration on one rank: any schedule's list of passes, over torch.distributed.

Nothing here knows the methods: what a pass needs is in `vocab_parallel.plan.dependencies`. The
passes of the transformer layers are here, those of the vocabulary layers in `run/ends`. All state
is kept per micro-batch and freed by the last pass that reads it.

Shape suffixes: N samples, T tokens, H hidden.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from common.clock import Clock
from vocab_parallel.plan.messages import Message, outgoing
from vocab_parallel.plan.passes import Kind, Pass, Schedule
from vocab_parallel.run.ends import Batch, Holdings
from vocab_parallel.run.links import Groups, Mail
from vocab_parallel.run.model import Work
from vocab_parallel.run.output import Rules
from vocab_parallel.run.sharded_ends import ShardedEnds
from vocab_parallel.run.whole_ends import WholeEnds


class Executor:
    """Runs a schedule's program of one rank; gradients add up in the store."""

    def __init__(
        self, schedule: Schedule, groups: Groups, held: Holdings, rules: Rules, clock: Clock
    ) -> None:
        self.schedule, self.groups, self.held = schedule, groups, held
        self.rank, self.device = groups.rank, held.store.device
        kind = ShardedEnds if schedule.barriers else WholeEnds
        self.ends = kind(schedule, groups, held, rules, clock)
        self.trains, self.span = self.ends.trains, self.ends.span

    def iterate(self, batches: Sequence[Batch]) -> Tensor:
        """Run all passes and return the sum of gamma x loss that this rank knows, float64.

        With sharded output every rank knows the whole sum, otherwise the last stage's rank.
        """
        shape = (*batches[0].tokens.shape, self.held.stages[0].model.hidden)
        like = torch.empty(shape, dtype=self.held.store.dtype, device=self.device)
        if self.groups.imagined:
            like.normal_()
        self.mail = Mail(self.schedule, self.groups, like)
        self.live: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self.work: dict[tuple[int, int], list[Work]] = {}
        self.turned: dict[Message, Tensor] = {}
        self.ends.begin(batches, like)
        own: dict[Kind, Callable[[Pass], None]] = {
            "F": self._forward,
            "B": self._backward,
            "W": self._weights,
        }
        runs = {**own, **self.ends.passes}
        with nullcontext() if self.trains else torch.no_grad():
            for item in self.schedule.programs[self.rank]:
                self.ends.before_pass()
                runs[item.kind](item)
            self.ends.before_pass()
        self.mail.drain()
        self.ends.end()
        return self.ends.loss

    def _forward(self, item: Pass) -> None:
        stage = self.schedule.stage(self.rank, item.chunk)
        if stage:
            x_NTH = self._neighbour(stage - 1, Message("F", item.batch, stage))
        else:
            x_NTH = self.ends.first_input(item.batch)
        with self.span(item):
            x_NTH = x_NTH.detach().requires_grad_(self.trains)
            y_NTH = self.held.stages[item.chunk].forward(x_NTH)
        if self.trains:
            self.live[item.batch, item.chunk] = x_NTH, y_NTH
        if stage + 1 < self.schedule.stages:
            self._hand_on(item, y_NTH.detach())
        else:
            self.ends.take_hidden(item, y_NTH.detach())

    def _backward(self, item: Pass) -> None:
        stage, split = self.schedule.stage(self.rank, item.chunk), self.schedule.split_backward
        if stage + 1 < self.schedule.stages:
            grad_NTH = self._neighbour(stage + 1, Message("B", item.batch, stage))
        else:
            grad_NTH = self.ends.last_gradient(item)
        x_NTH, y_NTH = self.live.pop((item.batch, item.chunk))
        with self.span(item):
            work = self.held.stages[item.chunk].backward(y_NTH, grad_NTH, keep_work=split)
        if split:
            self.work[item.batch, item.chunk] = work
        assert x_NTH.grad is not None
        if stage:
            self._hand_on(item, x_NTH.grad)
        else:
            self.ends.take_input_gradient(item, x_NTH.grad)

    def _weights(self, item: Pass) -> None:
        with self.span(item), torch.no_grad():
            for work in self.work.pop((item.batch, item.chunk)):
                work()

    def _hand_on(self, item: Pass, tensor: Tensor) -> None:
        """Send a result to the next stage, or keep it where that is on this rank."""
        goes = outgoing(self.schedule, self.rank, item)
        if goes is not None:
            self.mail.send(*goes, tensor)
            return
        stage = self.schedule.stage(self.rank, item.chunk) + (1 if item.kind == "F" else -1)
        self.turned[Message(item.kind, item.batch, stage)] = tensor

    def _neighbour(self, stage: int, message: Message) -> Tensor:
        source = self.schedule.place(stage)[0]
        if source == self.rank:
            return self.turned.pop(message)
        return self.mail.take(source, message)
