"""Messages between the stages of a pipeline, received in the order in which they are sent.

NCCL carries out everything on a communicator in the order in which it was posted, and where the
process group was begun with a device that includes single messages. So each pair of ranks has a
group of its two ranks for each direction: no message waits for one of another pair, as it would in
a group of all ranks, where a send may stand behind a receive whose sender waits for that send. The
receiver knows the sender's program and posts its receives in that order, so no tags are needed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from puzzle.plan.passes import Pass, Schedule
from puzzle.plan.roads import Pairs
from puzzle.run.groups import Groups

AHEAD = 2
"""Receives posted per neighbour before they are needed."""


class Directions:
    """A group of two ranks for each pair that will send, by (source, target)."""

    def __init__(self, timeout_s: float, pairs: Pairs) -> None:
        self.ways: dict[tuple[int, int], dist.ProcessGroup] = {}
        timeout, me = timedelta(seconds=timeout_s), dist.get_rank()
        for pair in sorted(pairs):
            made = dist.new_group(sorted(pair), timeout=timeout)
            if me in pair:
                assert isinstance(made, dist.ProcessGroup)
                self.ways[pair] = made
        self._open()

    def _open(self) -> None:
        """Make this rank's connections, on all ranks in one order.

        NCCL makes a connection when it is first used and holds both hosts until both are there;
        two ranks that began by receiving from each other would wait for ever.
        """
        token = torch.zeros(1, device="cuda" if dist.get_backend() == "nccl" else "cpu")
        for (source, target), group in self.ways.items():
            if source == dist.get_rank():
                dist.send(token, target, group=group)
            else:
                dist.recv(token, source, group=group)

    def towards(self, source: int, target: int) -> dist.ProcessGroup:
        """Return the group for messages from one rank to another; one of them is this rank."""
        assert (source, target) in self.ways, (source, target)
        return self.ways[source, target]


class Sender:
    """Sends without waiting and keeps each tensor until it has left."""

    def __init__(self, directions: Directions) -> None:
        self.directions, self.me = directions, dist.get_rank()
        self.waiting: deque[tuple[Tensor, dist.Work]] = deque()
        self.bytes = 0

    def send(self, target: int, tensor: Tensor) -> None:
        """Start sending a tensor to a rank."""
        tensor = tensor.contiguous()
        work = dist.isend(tensor, target, group=self.directions.towards(self.me, target))
        assert work is not None
        self.waiting.append((tensor, work))
        self.bytes += tensor.numel() * tensor.element_size()
        while self.waiting and self.waiting[0][1].is_completed():
            self.waiting.popleft()

    def drain(self) -> None:
        """Wait until all has left."""
        while self.waiting:
            self.waiting.popleft()[1].wait()


def post(directions: Directions, source: int, tensor: Tensor) -> dist.Work:
    """Start receiving into a tensor."""
    group = directions.towards(source, dist.get_rank())
    work = dist.irecv(tensor, source, group=group)
    assert work is not None
    return work


class Message(NamedTuple):
    """The result of a forward or backward pass, for a neighbouring stage."""

    kind: str
    model: str
    batch: int


def outgoing(schedule: Schedule, rank: int, item: Pass) -> tuple[int, Message] | None:
    """Return the pipeline rank that a pass's result goes to; None where it goes nowhere."""
    if item.kind not in ("F", "B"):
        return None
    stage = schedule.stage(item.model, rank) + (1 if item.kind == "F" else -1)
    if not 0 <= stage < schedule.stages:
        return None
    return schedule.rank(item.model, stage), Message(item.kind, item.model, item.batch)


class Mail:
    """One rank's messages of a schedule. `blank(model)` gives a tensor to receive into."""

    def __init__(
        self,
        schedule: Schedule,
        groups: Groups,
        directions: Directions,
        blank: Callable[[str], Tensor],
    ) -> None:
        self.schedule, self.groups, self.directions = schedule, groups, directions
        self.blank, self.me = blank, groups.place.stage
        self.sender = Sender(directions)
        self.expected: dict[int, deque[Message]] = {}
        self.posted: dict[int, deque[tuple[Message, Tensor, dist.Work]]] = {}
        for source, program in enumerate(schedule.programs):
            found = filter(None, (outgoing(schedule, source, item) for item in program))
            mine = deque(message for target, message in found if target == self.me)
            if mine:
                self.expected[source], self.posted[source] = mine, deque()
        self.early: dict[Message, tuple[Tensor, dist.Work]] = {}

    def hand_on(self, item: Pass, tensor: Tensor) -> None:
        """Send a pass's result to whom it goes."""
        goes = outgoing(self.schedule, self.me, item)
        if goes is not None:
            self.sender.send(self.groups.rank(goes[0]), tensor)

    def take(self, stage: int, message: Message) -> Tensor:
        """Return a message from a stage's rank, waiting for it."""
        source = self.schedule.rank(message.model, stage)
        if message in self.early:
            tensor, work = self.early.pop(message)
        else:
            while True:
                self._post(source, 1)
                found, tensor, work = self.posted[source].popleft()
                if found == message:
                    break
                self.early[found] = tensor, work
        self._post(source, AHEAD)
        work.wait()
        return tensor

    def _post(self, source: int, count: int) -> None:
        """Have at least `count` receives posted from a rank, as far as it sends so many."""
        waiting, posted = self.expected[source], self.posted[source]
        while waiting and len(posted) < count:
            message = waiting.popleft()
            tensor = self.blank(message.model)
            work = post(self.directions, self.groups.rank(source), tensor)
            posted.append((message, tensor, work))
