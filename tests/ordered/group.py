"""A process group for CPU ranks that keeps NCCL's rules; gloo carries the bytes.

What torch's ProcessGroupNCCL and NCCL do, and gloo does not:

- Everything on one communicator is carried out in the order in which it was posted, by one queue.
- An unbatched send or receive stands in that same queue where the process group was begun with a
  device (`eager`); otherwise each pair of ranks has a communicator of its own for both directions.
- `batch_isend_irecv` is one entry of the group's queue whose members progress together.
- A send ends only when its receive is reached.
- The first operation between ranks on a communicator connects them and holds their hosts until all
  of them are there.

`wait()` holds the host, where on CUDA only a stream would wait. So a run here has fewer freedoms
than one on CUDA: a pass is a proof, a stall is to be looked at (without `connects` it holds no host
but for what its program waits for).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from tests.ordered.desk import Desk
from tests.ordered.entries import Entry, Part, purpose

NAME = "ordered"
_LANES = 3
"""Tags are kept apart by their rest: 0 for connecting, 1 for the group's queue, 2 for a pair's."""


class Rules(NamedTuple):
    """What holds in a run.

    `eager`: the process group was begun with a device. `connects`: a first operation holds hosts.
    """

    eager: bool = True
    connects: bool = True


class Ticket(dist.Work):
    """What a posted operation returns."""

    def __init__(self, desk: Desk, entry: Entry) -> None:
        super().__init__()
        self.desk, self.entry = desk, entry

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Hold the host until the operation is over."""
        self.desk.hold(self.entry)
        return True

    def is_completed(self) -> bool:
        """Say whether it is over."""
        return self.entry.over.is_set()


class Ordered(dist.ProcessGroup):
    """One group on one rank: a queue for its communicator, and one per pair where not eager."""

    def __init__(self, options: Any, desk: Desk, rules: Rules) -> None:
        super().__init__(options.group_rank, options.group_size)
        self.desk, self.rules = desk, rules
        size = options.group_size
        self.members = list(options.global_ranks_in_group) or list(range(size))
        self.place, self.label = options.group_rank, str(options.group_id)
        store = dist.PrefixStore("gloo", options.store)
        self.gloo = dist.ProcessGroupGloo(store, options.group_rank, size, options.timeout)
        self.counts: defaultdict[tuple[str, str], int] = defaultdict(int)

    def getBackendName(self) -> str:  # noqa: N802  torch's name
        return NAME

    # Messages

    def send(self, tensors: list[Tensor], target: int, tag: int = 0) -> Ticket:
        return self._messages(self._pair(target), [("send", tensors, target)])

    def recv(self, tensors: list[Tensor], source: int, tag: int = 0) -> Ticket:
        return self._messages(self._pair(source), [("recv", tensors, source)])

    def batch(self, operations: Sequence[dist.P2POp]) -> list[dist.Work]:
        """Post messages that progress together."""
        messages = [
            ("send" if one.op is dist.isend else "recv", [one.tensor], one.group_peer)
            for one in operations
        ]
        return [self._messages(self.label, messages)]

    def _pair(self, other: int) -> str:
        """Return the communicator of unbatched messages with a rank of this group."""
        if self.rules.eager:
            return self.label
        low, high = sorted((self.place, other))
        return f"{self.label}/{low}:{high}"

    def _messages(self, lane: str, messages: list[tuple[str, list[Tensor], int]]) -> Ticket:
        ends = [
            (self.place, other) if what == "send" else (other, self.place)
            for what, _, other in messages
        ]
        self._connect(lane, {pair: [sum(pair) - self.place] for pair in ends})
        parts = [
            self._message(lane, pair, tensors)
            for pair, (_, tensors, _) in zip(ends, messages, strict=True)
        ]
        return self._post(lane, parts)

    def _message(self, lane: str, pair: tuple[int, int], tensors: list[Tensor]) -> Part:
        sends = pair[0] == self.place
        other = pair[1] if sends else pair[0]
        route, peer = f"{pair[0]}->{pair[1]}", self.members[other]
        number = self._number(lane, route)
        tag = _LANES * number + 1 + (lane != self.label)
        carry = self.gloo.send if sends else self.gloo.recv
        words = f"{'send' if sends else 'recv'} {purpose()} {'to' if sends else 'from'} {peer}"
        return Part(words, route, number, [peer], lambda: carry(tensors, other, tag))

    # Collectives

    def allreduce(self, tensors: list[Tensor], opts: Any = None) -> Ticket:
        return self._together("all-reduce", lambda: self.gloo.allreduce(tensors, opts))

    def broadcast(self, tensors: list[Tensor], opts: Any = None) -> Ticket:
        return self._together("broadcast", lambda: self.gloo.broadcast(tensors, opts))

    def allgather(
        self, outputs: list[list[Tensor]], inputs: list[Tensor], opts: Any = None
    ) -> Ticket:
        return self._together("all-gather", lambda: self.gloo.allgather(outputs, inputs, opts))

    def gather(self, outputs: list[list[Tensor]], inputs: list[Tensor], opts: Any) -> Ticket:
        return self._together("gather", lambda: self.gloo.gather(outputs, inputs, opts))

    def scatter(self, outputs: list[Tensor], inputs: list[list[Tensor]], opts: Any) -> Ticket:
        return self._together("scatter", lambda: self.gloo.scatter(outputs, inputs, opts))

    def barrier(self, opts: Any = None) -> Ticket:
        return self._together("barrier", lambda: self.gloo.barrier(opts or dist.BarrierOptions()))

    def _together(self, what: str, start: Callable[[], dist.Work]) -> Ticket:
        others = [place for place in range(len(self.members)) if place != self.place]
        self._connect(self.label, {None: others})
        ranks = [self.members[place] for place in others]
        words = f"{what} {purpose()} with {ranks}"
        part = Part(words, "all", self._number(self.label, "all"), ranks, start)
        return self._post(self.label, [part])

    # Both

    def _number(self, lane: str, route: str) -> int:
        number = self.counts[lane, route]
        self.counts[lane, route] += 1
        return number

    def _post(self, lane: str, parts: list[Part]) -> Ticket:
        side = self.desk.entered
        entry = Entry(parts, None if side is None else side.tail)
        self.desk.posts += [(self.label, part.words) for part in parts]
        self.desk.lane(lane).post(entry)
        return Ticket(self.desk, entry)

    def _connect(self, lane: str, routes: dict[tuple[int, int] | None, list[int]]) -> None:
        """Hold the host until all whom a first operation connects are there.

        `routes`: by (source, target), or None for a collective, the other ranks that it needs.
        """
        names = {way: f"{lane} {way or 'all'}" for way in routes}
        new = {
            way: others for way, others in routes.items() if names[way] not in self.desk.connected
        }
        if not new or not self.rules.connects:
            return

        def meet() -> None:
            works: list[dist.Work] = []
            for way, others in new.items():
                tag = _LANES * (2 * (lane != self.label) + (way is None or way[0] < way[1]))
                tag += _LANES * 4 * (way is None)
                for other in others:
                    works.append(self.gloo.send([torch.zeros(1)], other, tag))
                    works.append(self.gloo.recv([torch.zeros(1)], other, tag))
            for work in works:
                work.wait()

        ranks = {way: [self.members[other] for other in others] for way, others in new.items()}
        self.desk.connect([(names[way], ranks[way]) for way in new], meet)
