"""One iteration on one rank: any schedule's list of passes, over torch.distributed.

Nothing here knows the methods: what a pass needs is in `vocab_parallel.plan.dependencies`, when a
broadcast is posted in `vocab_parallel.plan.collectives`. Collectives are asynchronous; only S waits
for the others' statistics (on CUDA on a stream of its own). All state is kept per micro-batch and
freed by the last pass that reads it.

Shape suffixes: N samples, T tokens, H hidden, M tokens of a micro-batch (N x T), K statistics,
P ranks.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from vocab_parallel.plan.collectives import VOCABULARY, Broadcast, broadcasts
from vocab_parallel.plan.passes import Kind, Pass, Schedule
from vocab_parallel.run import output
from vocab_parallel.run.clock import Clock
from vocab_parallel.run.input import InputShard, add_gradient, look_up
from vocab_parallel.run.links import Groups, Mail, Message, outgoing
from vocab_parallel.run.model import Stage, Work
from vocab_parallel.run.output import Combined, Labels, Passed, Rules, Shard
from vocab_parallel.run.tensor import Team
from vocab_parallel.run.weights import Store

Reduction = dist.ReduceOp.RedOpType


class Batch(NamedTuple):
    """A micro-batch: tokens_NT, labels_M and the gradient of every token's loss."""

    tokens: Tensor  # N, T
    labels: Tensor  # M
    gamma: Tensor  # M


class Holdings(NamedTuple):
    """What a rank holds: its stages by chunk, and its rows of the vocabulary matrices, if any."""

    stages: Sequence[Stage]
    store: Store
    inputs: tuple[InputShard, str] | None
    output: tuple[Shard, str] | None


class Arriving(NamedTuple):
    """A tensor that a collective is still filling."""

    tensor: Tensor
    work: dist.Work | None

    def is_over(self) -> bool:
        """Say whether the collective has ended, without waiting."""
        return self.work is None or self.work.is_completed()

    def wait(self) -> Tensor:
        """Return the tensor when it is there."""
        if self.work is not None:
            self.work.wait()
        return self.tensor


class Executor:
    """Runs a schedule's program of one rank; gradients add up in the store."""

    def __init__(
        self, schedule: Schedule, groups: Groups, held: Holdings, rules: Rules, clock: Clock
    ) -> None:
        self.schedule, self.groups, self.held = schedule, groups, held
        self.rules, self.clock, self.rank = rules, clock, groups.rank
        self.device = held.store.device
        self.side = torch.cuda.Stream() if self.device.type == "cuda" else None
        self.trains = any(item.kind == "B" for item in schedule.programs[self.rank])

    def iterate(self, batches: Sequence[Batch]) -> Tensor:
        """Run all passes and return the sum of gamma x loss that this rank knows, float64.

        With sharded output every rank knows the whole sum, otherwise the last stage's rank.
        """
        self.batches = batches
        first = batches[0].tokens
        width = self.held.stages[0].model.hidden
        self.shape = (*first.shape, width)
        self.like = torch.empty(self.shape, dtype=self.held.store.dtype, device=self.device)
        if self.groups.imagined:
            self.like.normal_()
        self.mail = Mail(self.schedule, self.groups, self.like)
        self.due: deque[Broadcast] = deque(broadcasts(self.schedule))
        self.over = 0
        self.loss = torch.zeros((), dtype=torch.float64, device=self.device)
        self._forget()
        run = self._runs()
        with nullcontext() if self.trains else torch.no_grad():
            for item in self.schedule.programs[self.rank]:
                self._post_broadcasts()
                run[item.kind](item)
                self.over += item.kind in VOCABULARY
            self._post_broadcasts()
        self.mail.drain()
        for left in self.sending:
            left.wait()
        if self.side is not None:
            torch.cuda.current_stream().wait_stream(self.side)
        return self.loss

    def _runs(self) -> dict[Kind, Callable[[Pass], None]]:
        return {
            "F": self._forward,
            "B": self._backward,
            "W": self._weights,
            "IF": self._embed,
            "S": self._output,
            "T": self._output_gradient,
            "IB": self._embed_gradient,
        }

    def _forget(self) -> None:
        self.live: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self.work: dict[tuple[int, int], list[Work]] = {}
        self.turned: dict[Message, Tensor] = {}
        self.embedded: dict[int, Arriving] = {}
        self.hidden: dict[int, Arriving] = {}
        self.maxima: dict[int, tuple[Tensor, Arriving]] = {}
        self.passed: dict[int, Passed] = {}
        self.found: dict[int, Combined] = {}
        self.gradient: dict[int, Arriving] = {}
        self.input_gradient: dict[int, Arriving] = {}
        self.sources: dict[tuple[str, int], Tensor] = {}
        self.sending: deque[Arriving] = deque()

    # Passes of the transformer layers

    def _forward(self, item: Pass) -> None:
        stage = self.schedule.stage(self.rank, item.chunk)
        x_NTH = self._input_of(stage, item.batch)
        with self._span(item):
            x_NTH = x_NTH.detach().requires_grad_(self.trains)
            y_NTH = self.held.stages[item.chunk].forward(x_NTH)
        if self.trains:
            self.live[item.batch, item.chunk] = x_NTH, y_NTH
        if stage + 1 < self.schedule.stages:
            self._hand_on(item, y_NTH.detach())
        elif self.schedule.barriers:
            self.sources["hidden", item.batch] = y_NTH.detach()
        else:
            self._whole_output(item, y_NTH.detach())

    def _input_of(self, stage: int, batch: int) -> Tensor:
        if stage:
            return self._neighbour(stage - 1, Message("F", batch, stage))
        if self.schedule.barriers:
            return self.embedded.pop(batch).wait().view(self.shape)
        assert self.held.inputs is not None
        shard, _ = self.held.inputs
        x_MH = look_up(self.batches[batch].tokens.flatten(), shard)
        return self.groups.team.sum(x_MH).view(self.shape)

    def _backward(self, item: Pass) -> None:
        stage, batch = self.schedule.stage(self.rank, item.chunk), item.batch
        if stage + 1 < self.schedule.stages:
            grad_NTH = self._neighbour(stage + 1, Message("B", batch, stage))
        elif self.schedule.barriers:
            grad_NTH = self.gradient.pop(batch).wait().view(self.shape)
        else:
            grad_NTH = self._whole_output_backward(item)
        x_NTH, y_NTH = self.live.pop((batch, item.chunk))
        with self._span(item):
            work = self.held.stages[item.chunk].backward(
                y_NTH, grad_NTH, keep_work=self.schedule.chunks == 2
            )
        if self.schedule.chunks == 2:
            self.work[batch, item.chunk] = work
        assert x_NTH.grad is not None
        if stage:
            self._hand_on(item, x_NTH.grad)
        elif self.schedule.barriers:
            self.sources["input gradient", batch] = x_NTH.grad
        else:
            with self._span(item):
                self._add_input_gradient(batch, x_NTH.grad)

    def _weights(self, item: Pass) -> None:
        with self._span(item), torch.no_grad():
            for work in self.work.pop((item.batch, item.chunk)):
                work()

    def _hand_on(self, item: Pass, tensor: Tensor) -> None:
        """Send a result to the next stage, or keep it where that is on this rank."""
        goes = outgoing(self.schedule, self.rank, item)
        if goes is not None:
            self.mail.send(goes[0], tensor)
            return
        stage = self.schedule.stage(self.rank, item.chunk) + (1 if item.kind == "F" else -1)
        self.turned[Message(item.kind, item.batch, stage)] = tensor

    def _neighbour(self, stage: int, message: Message) -> Tensor:
        source = self.schedule.place(stage)[0]
        if source == self.rank:
            return self.turned.pop(message)
        return self.mail.take(source, message)

    # Whole vocabulary layers, on the first and last stage

    def _whole_output(self, item: Pass, x_NTH: Tensor) -> None:
        shard, labels = self._shard(item.batch)
        x_MH, team = x_NTH.flatten(0, 1), self.groups.team
        with self._span(item):
            passed = output.s_pass(x_MH, shard, labels, self.rules)
            gathered_PKN = self._gather(passed, team)
            found = output.combine(gathered_PKN, team.place, shard, labels, self.rules)
            self._count(found, labels)
        if self.trains:
            self.hidden[item.batch] = Arriving(x_MH, None)
            self.passed[item.batch], self.found[item.batch] = passed, found

    def _whole_output_backward(self, item: Pass) -> Tensor:
        with self._span(item):
            grad_MH = self._t(item.batch)
        assert grad_MH is not None
        return self.groups.team.sum(grad_MH).view(self.shape)

    # Passes of the sharded vocabulary layers

    def _embed(self, item: Pass) -> None:
        assert self.held.inputs is not None
        with self._span(item):
            x_MH = look_up(self.batches[item.batch].tokens.flatten(), self.held.inputs[0])
        total = self._all_reduce(x_MH)
        if self.rank == 0:
            self.embedded[item.batch] = total
        else:
            self._keep(total)

    def _output(self, item: Pass) -> None:
        batch = item.batch
        shard, labels = self._shard(batch)
        if self.schedule.barriers == 3:
            self._output_in_parts(item, shard, labels)
            return
        x_MH = self.hidden[batch].wait().flatten(0, 1)
        with self._span(item):
            self.passed[batch] = output.s_pass(x_MH, shard, labels, self.rules)
        self._statistics(item, shard, labels)

    def _output_in_parts(self, item: Pass, shard: Shard, labels: Labels) -> None:
        batch = item.batch
        if item.chunk == 0:
            x_MH = self.hidden[batch].wait().flatten(0, 1)
            with self._span(item):
                logits, maximum = output.s_first(x_MH, shard)
            self.maxima[batch] = logits, self._all_reduce(maximum, dist.ReduceOp.MAX)
            return
        logits, arriving = self.maxima.pop(batch)
        maximum = arriving.wait()
        with self._span(item):
            self.passed[batch] = output.s_second(logits, maximum, shard, labels, self.rules)
        self._statistics(item, shard, labels)

    def _statistics(self, item: Pass, shard: Shard, labels: Labels) -> None:
        """Gather every rank's maxima and sums (barrier C1); Algorithm 2 also reduces dX here."""
        batch, early_MH = item.batch, None
        passed = self.passed[batch]
        with self._beside(passed, labels):
            every = Team(self.groups.vocabulary, self.groups.shard, self.groups.shards)
            gathered_PKN = self._gather(passed, every)
            with self._span(item):
                found = output.combine(gathered_PKN, every.place, shard, labels, self.rules)
                self._count(found, labels)
                if self.trains and self.rules.algorithm != "vocab-1":
                    early_MH = output.early_gradient(passed, found, labels, self.rules)
            if early_MH is not None:
                self._reduce_gradient(batch, early_MH)
                self.passed[batch] = passed._replace(product=None, target=None)
        if self.side is not None:
            for tensor in (*found, *([] if early_MH is None else [early_MH])):
                tensor.record_stream(torch.cuda.current_stream())
        if self.trains:
            self.found[batch] = found
        else:
            del self.passed[batch], self.hidden[batch]

    def _output_gradient(self, item: Pass) -> None:
        with self._span(item):
            late_MH = self._t(item.batch)
        if late_MH is not None:
            self._reduce_gradient(item.batch, late_MH)

    def _t(self, batch: int) -> Tensor | None:
        """Add this shard's dW; return Algorithm 1's part of dX."""
        shard, labels = self._shard(batch)
        assert self.held.output is not None
        found = self.found.pop(batch)
        if self.side is not None:
            torch.cuda.current_stream().wait_stream(self.side)
        x_MH = self.hidden.pop(batch).tensor.flatten(0, -2)
        passed, sums = self.passed.pop(batch), self.held.store.gradients[self.held.output[1]]
        return output.t_pass(x_MH, passed, found, shard, labels, self.rules, into=sums)[1]

    def _embed_gradient(self, item: Pass) -> None:
        grad = self.input_gradient.pop(item.batch).wait()
        with self._span(item):
            self._add_input_gradient(item.batch, grad)

    def _add_input_gradient(self, batch: int, grad: Tensor) -> None:
        assert self.held.inputs is not None
        shard, name = self.held.inputs
        ids_M = self.batches[batch].tokens.flatten()
        add_gradient(self.held.store.gradients[name], ids_M, grad.flatten(0, -2), shard)

    # Collectives

    def _post_broadcasts(self) -> None:
        """Post every broadcast whose turn has come; on its root that needs the source."""
        while self.due and self.due[0].after <= self.over:
            what, batch, root = self.due[0].what, self.due[0].batch, self.due[0].root
            source = self.sources.pop((what, batch), None)
            if root == self.rank and source is None:
                return
            self.due.popleft()
            if self.groups.team.place:
                source = None  # the first of the root's team sends, to the others of it too
            tensor = self.groups.blank(self.like) if source is None else source.contiguous()
            first = self.groups.world_rank(root, 0)
            work = dist.broadcast(tensor, first, group=self.groups.vocabulary, async_op=True)
            arriving = Arriving(tensor, work)
            (self.hidden if what == "hidden" else self.input_gradient)[batch] = arriving

    def _keep(self, total: Arriving) -> None:
        """Hold what only another rank reads until it has left, and no longer."""
        self.sending.append(total)
        while self.sending and self.sending[0].is_over():
            self.sending.popleft()

    def _gather(self, passed: Passed, team: Team) -> Tensor:
        """Return all ranks' statistics, in their order."""
        if team.size == 1:
            return passed.local[None]
        gathered_PKN = passed.local.new_empty(team.size, *passed.local.shape)
        dist.all_gather(list(gathered_PKN.unbind()), passed.local, group=team.group)
        return gathered_PKN

    def _all_reduce(
        self, tensor: Tensor, op: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM
    ) -> Arriving:
        group = self.groups.vocabulary
        return Arriving(tensor, dist.all_reduce(tensor, op, group=group, async_op=True))

    def _reduce_gradient(self, batch: int, part_MH: Tensor) -> None:
        """Sum dX over ranks; only the last stage's rank reads it.

        All-reduce, as the artifact does: a reduce would load the ranks of a ring unequally.
        """
        total = self._all_reduce(part_MH)
        if self.rank == self.schedule.place(self.schedule.stages - 1)[0]:
            self.gradient[batch] = total
        else:
            self._keep(total)

    @contextmanager
    def _beside(self, passed: Passed, labels: Labels) -> Iterator[None]:
        """Queue on the side stream (CUDA), so that passes go on while the ranks agree."""
        if self.side is None:
            yield
            return
        for tensor in (passed.local, passed.product, passed.target, *labels):
            if tensor is not None:
                tensor.record_stream(self.side)  # freed here, not used again before it was read
        self.side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.side):
            yield

    def _shard(self, batch: int) -> tuple[Shard, Labels]:
        assert self.held.output is not None
        shard, _ = self.held.output
        given = self.batches[batch]
        return shard, output.shard_labels(given.labels, given.gamma, shard)

    def _count(self, found: Combined, labels: Labels) -> None:
        self.loss += (found.loss * labels.gamma).sum().double()

    def _span(self, item: Pass) -> AbstractContextManager[None]:
        return self.clock.span(f"{item.kind}{item.chunk}", item.batch)
