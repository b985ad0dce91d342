"""Where the ranks agree on the statistics: beside the passes on CUDA, in turn on a CPU.

What is done inside `entered` comes after all that was launched before. Collectives are posted there
at once, in the program's order; what computes with their results is handed to `do`. On CUDA that is
launched on a stream of its own, which waits where this thread and the passes do not; `join` has
what follows wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import torch
from torch import Tensor

Entry = Callable[[], Iterable[Tensor]]
"""Computes, and returns the tensors that it made for what comes after `join`."""


class Side(Protocol):
    """Work beside the passes."""

    def entered(self, *used: Tensor | None) -> AbstractContextManager[None]:
        """Begin; `used` are tensors made outside that entries read."""
        ...

    def do(self, entry: Entry) -> None:
        """Have an entry done after those before it."""
        ...

    def join(self) -> None:
        """Have what follows wait for all entries."""
        ...


class InTurn:
    """All at once: CPUs."""

    def entered(self, *used: Tensor | None) -> AbstractContextManager[None]:
        """Begin; nothing is to be kept."""
        return nullcontext()

    def do(self, entry: Entry) -> None:
        """Do it now."""
        entry()

    def join(self) -> None:
        """Return: all is done."""


class Beside:
    """On a CUDA stream of its own."""

    def __init__(self) -> None:
        self.stream = torch.cuda.Stream()

    @contextmanager
    def entered(self, *used: Tensor | None) -> Iterator[None]:
        """Launch on the side stream; `used` are kept until it has read them."""
        self.main = torch.cuda.current_stream()
        for tensor in used:
            if tensor is not None:
                tensor.record_stream(self.stream)  # freed here, not used again before it was read
        self.stream.wait_stream(self.main)
        with torch.cuda.stream(self.stream):
            yield

    def do(self, entry: Entry) -> None:
        """Launch it; what it made is read on the stream of the passes."""
        for tensor in entry():
            tensor.record_stream(self.main)

    def join(self) -> None:
        """Have the stream of the passes wait; this thread goes on."""
        torch.cuda.current_stream().wait_stream(self.stream)


def side_of(device: torch.device) -> Side:
    """Return how a device's ranks agree."""
    return Beside() if device.type == "cuda" else InTurn()
