"""Transfer between stages of unlike layout: activations forward, gradients back.

Which rank sends which samples to which is in `metis.run.layout.messages`; here they travel.
"""

from collections import deque

import torch.distributed as dist
from torch import Tensor

from metis.plan.plans import Stage
from metis.run.layout import Message, Position, messages, sample_range
from metis.run.parallel import TensorGroup


class Arrival:
    """A micro-batch's tensor on its way to this rank."""

    def __init__(self, part_NTh: Tensor, works: list[dist.Work], tensor: TensorGroup) -> None:
        self.part_NTh, self.works, self.tensor = part_NTh, works, tensor

    def wait(self) -> Tensor:
        """Return x_NTH when it is here; every slice calls this at the same point."""
        for work in self.works:
            work.wait()
        return self.tensor.gather(self.part_NTh)


class Channel:
    """One direction of one boundary, as one rank sees it.

    Every direction has its own process group: NCCL pairs sends and receives of a group by their
    order, which is the micro-batches' order within a direction but differs between the two.
    """

    def __init__(
        self,
        *,
        source: Stage,
        target: Stage,
        me: Position,
        group: dist.ProcessGroup,
        like_TH: Tensor,
        tensor: TensorGroup,
        patience: int,
    ) -> None:
        every = list(messages(source, target))
        self.outgoing = [message for message in every if message.source == me.rank]
        self.incoming = [message for message in every if message.target == me.rank]
        stage = source if self.outgoing else target
        self.mine = sample_range(stage, me.replica)
        self.group, self.like_TH, self.tensor = group, like_TH, tensor
        self.patience = patience
        self.sent: deque[tuple[list[dist.Work], list[dist.P2POp]]] = deque()

    def send(self, x_NTH: Tensor) -> None:
        """Start sending this rank's share; wait only for what is long overdue.

        In 1F1B a transfer is over by the time that `patience` = S later ones have begun, so
        memory stays bounded and this never blocks for long.
        """
        if self.outgoing:
            sends = [self._send(message, x_NTH) for message in self.outgoing]
            self.sent.append((dist.batch_isend_irecv(sends), sends))
        if len(self.sent) > self.patience:
            self._finish_oldest()

    def receive(self) -> Arrival:
        """Start receiving the next micro-batch."""
        parts = self.incoming[0].parts
        tokens, hidden = self.like_TH.shape
        part_NTh = self.like_TH.new_empty(len(self.mine), tokens, hidden // parts)
        receives = [
            dist.P2POp(dist.irecv, self._rows(part_NTh, message), message.source, self.group)
            for message in self.incoming
        ]
        return Arrival(part_NTh, dist.batch_isend_irecv(receives), self.tensor)

    def drain(self) -> None:
        """Wait for everything sent."""
        while self.sent:
            self._finish_oldest()

    def _send(self, message: Message, x_NTH: Tensor) -> dist.P2POp:
        part = self._rows(x_NTH, message).tensor_split(message.parts, dim=-1)[message.part]
        return dist.P2POp(dist.isend, part.contiguous(), message.target, self.group)

    def _rows(self, x_NTH: Tensor, message: Message) -> Tensor:
        start = self.mine.start
        return x_NTH[message.begin - start : message.end - start]

    def _finish_oldest(self) -> None:
        works, _ = self.sent.popleft()
        for work in works:
            work.wait()
