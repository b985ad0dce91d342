"""Who sends what to whom: the process groups of a pipeline and its point-to-point messages.

NCCL carries out everything on a communicator in the order in which it was posted. Each pair of
neighbours therefore has a group of its two ranks for each direction, in which receives stand in the
order of the sender's program: a message waits for earlier messages of its own way only.
`vocab_parallel.plan.queues` proves of a schedule that nothing stalls so.
"""

from collections import deque
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from vocab_parallel.plan.messages import Message, Receipts, ways
from vocab_parallel.plan.passes import Schedule
from vocab_parallel.run.tensor import Team


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


class Groups:
    """The groups of one rank; all ranks make all groups in the same order.

    Pipeline position `rank` is held by `team`, ranks that follow each other in the world.
    `vocabulary` has the collectives of the pipeline's `shards` ranks (this one is number `shard`),
    `ways` the messages between neighbouring positions by (source, target), `data` the replicas of
    this rank, `ends` those of the first and last position at the same place of their teams.
    `imagined`: this process is alone and the others are torch's `fake` group (`run/replay`).
    """

    def __init__(
        self, schedule: Schedule, replicas: int, timeout_s: float, tensor: int = 1
    ) -> None:
        ranks = schedule.ranks
        self.timeout, self.me = timedelta(seconds=timeout_s), dist.get_rank()
        shards = ranks * tensor
        self.replica, self.shard, self.shards = self.me // shards, self.me % shards, shards
        self.rank, self.ranks = self.shard // tensor, ranks
        self.first = self.replica * shards
        self.own: dict[str | tuple[int, int], dist.ProcessGroup] = {}
        for replica in range(replicas):
            members = list(range(replica * shards, (replica + 1) * shards))
            self._make("vocabulary", members)
            for place in range(tensor):
                same = members[place::tensor]
                self._make("ends", [same[0], same[-1]])
                for source, target in ways(schedule):
                    self._make((source, target), [same[source], same[target]])
            for start in members[::tensor] if tensor > 1 else ():
                self._make("team", list(range(start, start + tensor)))
        for shard in range(shards if replicas > 1 else 0):
            self._make("data", list(range(shard, shards * replicas, shards)))
        self.team = Team(self.own.get("team"), self.shard % tensor, tensor)
        self.imagined = dist.get_backend() == "fake"
        self.vocabulary = self.own["vocabulary"]
        self.ends, self.data = self.own.get("ends"), self.own.get("data")
        self.ways = {name: group for name, group in self.own.items() if isinstance(name, tuple)}

    def warm(self, device: torch.device) -> int:
        """Use each group of this rank once and return how many there are.

        NCCL connects ranks when they first use a group and holds their hosts until all of them are
        there, which amid a pipeline may be never. Every rank comes here and has its groups in the
        order in which all groups were made, so none waits for a rank that waits for it.
        """
        token = torch.zeros(1, device=device)
        for name, group in self.own.items():
            if not isinstance(name, tuple):
                dist.all_reduce(token, group=group)
            elif self.rank == name[0]:
                dist.send(token, self.world_rank(name[1]), group=group)
            else:
                dist.recv(token, self.world_rank(name[0]), group=group)
        return len(self.own)

    def blank(self, like: Tensor) -> Tensor:
        """Return a tensor to receive into; where nobody sends, it has values to compute with."""
        return like.clone() if self.imagined else torch.empty_like(like)

    def world_rank(self, rank: int, place: int | None = None) -> int:
        """Return the world's number of a place (this rank's) in the team of a position."""
        own = self.team.place if place is None else place
        return self.first + rank * self.team.size + own

    def _make(self, name: str | tuple[int, int], members: list[int]) -> None:
        group = dist.new_group(sorted({*members}), timeout=self.timeout)
        if self.me in members:
            assert isinstance(group, dist.ProcessGroup)
            self.own[name] = group


class Mail:
    """Sends results to neighbouring ranks and receives theirs, a few ahead."""

    def __init__(self, schedule: Schedule, groups: Groups, like: Tensor) -> None:
        self.groups, self.like, self.me = groups, like, groups.rank
        self.receipts = Receipts(schedule, self.me)
        self.posted: dict[Message, tuple[Tensor, dist.Work]] = {}
        self.sent: deque[tuple[Tensor, dist.Work]] = deque()

    def send(self, target: int, message: Message, tensor: Tensor) -> None:
        """Start sending; the tensor is kept until it has left."""
        group, tensor = self.groups.ways[self.me, target], tensor.contiguous()
        work = dist.isend(tensor, self.groups.world_rank(target), group=group)
        assert work is not None, message
        self.sent.append((tensor, work))
        while self.sent and self.sent[0][1].is_completed():
            self.sent.popleft()

    def take(self, source: int, message: Message) -> Tensor:
        """Return a message, waiting for it (on CUDA the stream waits, not this thread)."""
        for due in self.receipts.take(source, message):
            self._post(source, due)
        tensor, work = self.posted.pop(message)
        work.wait()
        return tensor

    def drain(self) -> None:
        """Wait until everything sent has left."""
        while self.sent:
            self.sent.popleft()[1].wait()

    def _post(self, source: int, message: Message) -> None:
        tensor = self.groups.blank(self.like)
        group = self.groups.ways[source, self.me]
        work = dist.irecv(tensor, self.groups.world_rank(source), group=group)
        assert work is not None
        self.posted[message] = tensor, work
