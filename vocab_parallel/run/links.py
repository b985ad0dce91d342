"""Who sends what to whom: the process groups of a pipeline and its point-to-point messages.

Messages of one pair of ranks go through one group per direction and are received in the order in
which the sender's program makes them, so no tags are needed and NCCL cannot stall.
"""

from collections import deque
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from vocab_parallel.plan.passes import Pass, Schedule
from vocab_parallel.run.tensor import Team

AHEAD = 2
"""Receives posted per neighbour before they are needed."""


class Groups:
    """The groups of one rank; all ranks make all groups in the same order.

    Pipeline position `rank` is held by `team`, ranks that follow each other in the world.
    `vocabulary` has the collectives of the pipeline's `shards` ranks (this one is number `shard`),
    `down` and `up` its messages to higher and to lower positions, `data` the replicas of this
    rank, `ends` those of the first and last position at the same place of their teams.
    `imagined`: this process is alone and the others are torch's `fake` group (`run/replay`).
    """

    def __init__(self, ranks: int, replicas: int, timeout_s: float, tensor: int = 1) -> None:
        timeout, me, shards = timedelta(seconds=timeout_s), dist.get_rank(), ranks * tensor
        self.replica, self.shard, self.shards = me // shards, me % shards, shards
        self.rank, self.ranks = self.shard // tensor, ranks
        self.first = self.replica * shards
        own: dict[str, dist.ProcessGroup] = {}
        for replica in range(replicas):
            members = list(range(replica * shards, (replica + 1) * shards))
            for name in ("vocabulary", "down", "up"):
                _make(own, name, members, me, timeout)
            for place in range(tensor):
                _make(own, "ends", [members[place], members[place - tensor]], me, timeout)
            for start in members[::tensor] if tensor > 1 else ():
                _make(own, "team", list(range(start, start + tensor)), me, timeout)
        for shard in range(shards if replicas > 1 else 0):
            _make(own, "data", list(range(shard, shards * replicas, shards)), me, timeout)
        self.team = Team(own.get("team"), self.shard % tensor, tensor)
        self.imagined = dist.get_backend() == "fake"
        self.vocabulary, self.down, self.up = own["vocabulary"], own["down"], own["up"]
        self.ends, self.data = own.get("ends"), own.get("data")

    def blank(self, like: Tensor) -> Tensor:
        """Return a tensor to receive into; where nobody sends, it has values to compute with."""
        return like.clone() if self.imagined else torch.empty_like(like)

    def world_rank(self, rank: int, place: int | None = None) -> int:
        """Return the world's number of a place (this rank's) in the team of a position."""
        own = self.team.place if place is None else place
        return self.first + rank * self.team.size + own

    def towards(self, source: int, target: int) -> dist.ProcessGroup:
        """Return the group for messages between two pipeline ranks."""
        return self.down if source < target else self.up


def _make(
    own: dict[str, dist.ProcessGroup], name: str, members: list[int], me: int, timeout: timedelta
) -> None:
    group = dist.new_group(sorted({*members}), timeout=timeout)
    if me in members:
        assert isinstance(group, dist.ProcessGroup)
        own[name] = group


class Message(NamedTuple):
    """The result of a pass of the sender, of use to a stage of the receiver."""

    kind: str
    batch: int
    stage: int
    """The stage that receives."""


def outgoing(schedule: Schedule, rank: int, item: Pass) -> tuple[int, Message] | None:
    """Return the rank that a pass's result goes to, and as what; None where it stays here."""
    if item.kind not in ("F", "B"):
        return None
    stage = schedule.stage(rank, item.chunk) + (1 if item.kind == "F" else -1)
    if not 0 <= stage < schedule.stages:
        return None
    target = schedule.place(stage)[0]
    return None if target == rank else (target, Message(item.kind, item.batch, stage))


class Mail:
    """Sends results to neighbouring ranks and receives theirs, a few ahead."""

    def __init__(self, schedule: Schedule, groups: Groups, like: Tensor) -> None:
        self.groups, self.like, self.me = groups, like, groups.rank
        self.expected: dict[int, deque[Message]] = {}
        self.posted: dict[Message, tuple[Tensor, dist.Work]] = {}
        self.sent: deque[tuple[Tensor, dist.Work]] = deque()
        for source, program in enumerate(schedule.programs):
            found = [outgoing(schedule, source, item) for item in program]
            mine = [message for target, message in filter(None, found) if target == self.me]
            if mine:
                self.expected[source] = deque(mine)

    def send(self, target: int, tensor: Tensor) -> None:
        """Start sending; the tensor is kept until it has left."""
        group, tensor = self.groups.towards(self.me, target), tensor.contiguous()
        work = dist.isend(tensor, self.groups.world_rank(target), group=group)
        assert work is not None
        self.sent.append((tensor, work))
        while self.sent and self.sent[0][1].is_completed():
            self.sent.popleft()

    def take(self, source: int, message: Message) -> Tensor:
        """Return a message, waiting for it (on CUDA the stream waits, not this thread)."""
        while message not in self.posted:
            self._post(source)
        tensor, work = self.posted.pop(message)
        ahead = sum(1 for waiting in self.posted if waiting.kind == message.kind)
        for _ in range(AHEAD - ahead):
            self._post(source)
        work.wait()
        return tensor

    def drain(self) -> None:
        """Wait until everything sent has left."""
        while self.sent:
            self.sent.popleft()[1].wait()

    def _post(self, source: int) -> None:
        if not self.expected[source]:
            return
        message = self.expected[source].popleft()
        tensor = self.groups.blank(self.like)
        group = self.groups.towards(source, self.me)
        work = dist.irecv(tensor, self.groups.world_rank(source), group=group)
        assert work is not None
        self.posted[message] = tensor, work
