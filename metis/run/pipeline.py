"""One iteration of 1F1B on one rank: the order of passes that the timeline plays, for real."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from common.clock import Clock
from metis.run.exchange import Arrival, Channel
from metis.simulate.order import Kind


class Links(NamedTuple):
    """A stage's four channels; None where there is no neighbour."""

    from_previous: Channel | None
    to_next: Channel | None
    from_next: Channel | None
    to_previous: Channel | None


class Pipeline:
    """Runs a stage's passes in order; gradients add up in the layers' parameters."""

    def __init__(
        self,
        layers: nn.ModuleList,
        order: Sequence[tuple[Kind, int]],
        links: Links,
        clock: Clock,
        *,
        loss_scale: float,
    ) -> None:
        self.layers, self.order, self.links, self.clock = layers, order, links, clock
        self.loss_scale = loss_scale
        self.live: dict[int, tuple[Tensor, Tensor]] = {}

    def iterate(self, tokens: list[Tensor], labels: list[Tensor]) -> Tensor:
        """Run all passes of one iteration and return this replica's part of the mean loss.

        `tokens` and `labels` hold one [N, T] tensor per micro-batch; only the first stage reads
        the one, only the last stage the other. The next pass's input is asked for before the
        current pass computes, so transfers overlap.
        """
        self.loss = torch.zeros((), device=tokens[0].device, dtype=torch.float64)
        upcoming = self._ask(self.order[0])
        for step, (kind, batch) in enumerate(self.order):
            arrival = upcoming
            upcoming = self._ask(self.order[step + 1]) if step + 1 < len(self.order) else None
            if kind == "F":
                x = arrival.wait().requires_grad_() if arrival else tokens[batch]
                self._forward(batch, x, labels[batch])
            else:
                self._backward(batch, arrival.wait() if arrival else None)
        for channel in (self.links.to_next, self.links.to_previous):
            if channel:
                channel.drain()
        return self.loss

    def _ask(self, item: tuple[Kind, int]) -> Arrival | None:
        """Start receiving a pass's input, if it comes from another stage."""
        channel = self.links.from_previous if item[0] == "F" else self.links.from_next
        return channel.receive() if channel else None

    def _forward(self, batch: int, x: Tensor, labels_NT: Tensor) -> None:
        with self.clock.span("F", batch):
            y = x
            for layer in self.layers[: -1 if self.links.to_next is None else None]:
                y = layer(y)
            if self.links.to_next is None:
                y = self.layers[-1](y, labels_NT).sum() * self.loss_scale
        self.live[batch] = (x, y)
        if self.links.to_next:
            self.links.to_next.send(y.detach())
        else:
            self.loss += y.detach()

    def _backward(self, batch: int, grad: Tensor | None) -> None:
        x, y = self.live.pop(batch)
        with self.clock.span("B", batch):
            y.backward(grad)
        if self.links.to_previous:
            assert x.grad is not None
            self.links.to_previous.send(x.grad)
