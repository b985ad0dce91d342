"""The two ends of the pipeline on one rank: its rows of the vocabulary matrices, and the loss.

What both forms have in common, of which a schedule has one: whole matrices on the first and last
stage (`whole_ends`), or matrices cut over all ranks with passes of their own (`sharded_ends`).

Shape suffixes: N samples, T tokens, H hidden, M tokens of a micro-batch (N x T), K statistics,
P ranks.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from common.clock import Clock
from vocab_parallel.plan.passes import Kind, Pass, Schedule
from vocab_parallel.run import output
from vocab_parallel.run.input import InputShard, add_gradient
from vocab_parallel.run.links import Arriving, Groups
from vocab_parallel.run.model import Stage
from vocab_parallel.run.output import Combined, Labels, Passed, Rules, Shard
from vocab_parallel.run.tensor import Team
from vocab_parallel.run.weights import Store


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


class Ends(ABC):
    """All state is kept per micro-batch and freed by the last pass that reads it."""

    def __init__(
        self, schedule: Schedule, groups: Groups, held: Holdings, rules: Rules, clock: Clock
    ) -> None:
        self.schedule, self.groups, self.held = schedule, groups, held
        self.rules, self.clock, self.rank = rules, clock, groups.rank
        self.device = held.store.device
        self.trains = any(item.kind == "B" for item in schedule.programs[self.rank])
        self.passes: Mapping[Kind, Callable[[Pass], None]] = {}
        """What runs the passes of the vocabulary layers, by kind."""

    def begin(self, batches: Sequence[Batch], like: Tensor) -> None:
        """Begin an iteration; `like` is a tensor N x T x H as they go from stage to stage."""
        self.batches, self.like, self.shape = batches, like, like.shape
        self.loss = torch.zeros((), dtype=torch.float64, device=self.device)
        self.hidden: dict[int, Arriving] = {}
        self.passed: dict[int, Passed] = {}
        self.found: dict[int, Combined] = {}

    @abstractmethod
    def before_pass(self) -> None:
        """Post what is due before a rank's next pass, and behind its last one."""

    @abstractmethod
    def end(self) -> None:
        """Wait for all that is under way."""

    @abstractmethod
    def first_input(self, batch: int) -> Tensor:
        """Return what the first stage's F begins with."""

    @abstractmethod
    def take_hidden(self, item: Pass, x_NTH: Tensor) -> None:
        """Take what the last stage's F has made."""

    @abstractmethod
    def last_gradient(self, item: Pass) -> Tensor:
        """Return what the last stage's B begins with."""

    @abstractmethod
    def take_input_gradient(self, item: Pass, grad_NTH: Tensor) -> None:
        """Take what the first stage's B has made."""

    def span(self, item: Pass) -> AbstractContextManager[None]:
        """Return a span of the clock for a pass."""
        return self.clock.span(f"{item.kind}{item.chunk}", item.batch)

    def shard(self, batch: int) -> tuple[Shard, Labels]:
        """Return this rank's rows of the output matrix, and a micro-batch's labels among them."""
        assert self.held.output is not None
        shard, _ = self.held.output
        given = self.batches[batch]
        return shard, output.shard_labels(given.labels, given.gamma, shard)

    def gather(self, passed: Passed, team: Team) -> Arriving:
        """Start gathering a team's statistics, P x K x N in the order of its ranks."""
        if team.size == 1:
            return Arriving(passed.local[None], None)
        gathered_PKN = passed.local.new_empty(team.size, *passed.local.shape)
        parts = list(gathered_PKN.unbind())
        work = dist.all_gather(parts, passed.local, group=team.group, async_op=True)
        return Arriving(gathered_PKN, work)

    def count(self, found: Combined, labels: Labels) -> None:
        """Add a micro-batch's gamma x loss."""
        self.loss += (found.loss * labels.gamma).sum().double()

    def late_gradient(self, batch: int) -> Tensor | None:
        """Do T: add this shard's dW; return Algorithm 1's part of dX."""
        shard, labels = self.shard(batch)
        assert self.held.output is not None
        found = self.found.pop(batch)
        x_MH = self.hidden.pop(batch).tensor.flatten(0, -2)
        passed, sums = self.passed.pop(batch), self.held.store.gradients[self.held.output[1]]
        return output.t_pass(x_MH, passed, found, shard, labels, self.rules, into=sums)[1]

    def add_input_gradient(self, batch: int, grad: Tensor) -> None:
        """Add this shard's dW of the input matrix."""
        assert self.held.inputs is not None
        shard, name = self.held.inputs
        ids_M = self.batches[batch].tokens.flatten()
        add_gradient(self.held.store.gradients[name], ids_M, grad.flatten(0, -2), shard)
