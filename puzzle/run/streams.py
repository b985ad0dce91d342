"""When the switch is carried out: beside the training that is left, or when generation begins.

The actor's weights are final as soon as its update is over, often long before the critic's last
pass. On CUDA the switch then goes on a stream of its own while the critic is still trained, and
generation waits for it by an event; the host never waits. On CPUs it is done when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

Begun = TypeVar("Begun")
Made = TypeVar("Made")
Made_co = TypeVar("Made_co", covariant=True)


class Taken(Protocol[Made_co]):
    """Work that has been arranged."""

    def take(self) -> Made_co:
        """Return its result, ready for what is done next."""
        ...


class Streams(Protocol):
    """Arranges work of two parts: `start` posts messages, `finish` waits for and places them."""

    ahead: bool
    """Whether work arranged during training begins before it is taken."""

    def arrange(self, start: Callable[[], Begun], finish: Callable[[Begun], Made]) -> Taken[Made]:
        """Have both parts done, by order of what was done before."""
        ...


class InTurn:
    """All when it is taken: CPUs."""

    ahead = False

    def arrange(self, start: Callable[[], Begun], finish: Callable[[Begun], Made]) -> Taken[Made]:
        """Keep both parts for later."""
        return Deferred(lambda: finish(start()))


class Deferred:
    """Work that is done when it is taken."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self.action = action

    def take(self) -> Any:
        """Do it."""
        return self.action()


class Beside:
    """On a CUDA stream of its own: after what was launched before, before what takes it.

    `cuda` is torch.cuda, or what records its calls in a test.
    """

    ahead = True

    def __init__(self, cuda: Any = torch.cuda) -> None:
        self.cuda, self.side = cuda, cuda.Stream()

    def arrange(self, start: Callable[[], Begun], finish: Callable[[Begun], Made]) -> Taken[Made]:
        """Launch both parts on the side stream; an event marks their end."""
        before = self.cuda.Event()
        before.record(self.cuda.current_stream())
        self.side.wait_event(before)
        with self.cuda.stream(self.side):
            made = finish(start())
        after = self.cuda.Event()
        after.record(self.side)
        return _Launched(self.cuda, made, after)


class _Launched:
    def __init__(self, cuda: Any, made: Any, after: Any) -> None:
        self.cuda, self.made, self.after = cuda, made, after

    def take(self) -> Any:
        main = self.cuda.current_stream()
        main.wait_event(self.after)
        for tensor in tensors_in(self.made):
            tensor.record_stream(main)  # made on the side stream, its memory is used here
        return self.made


def tensors_in(value: object) -> Iterable[Tensor]:
    """Yield the tensors in nested tuples and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from tensors_in(inner)
    elif isinstance(value, tuple):
        for inner in value:
            yield from tensors_in(inner)


def streams_of(device: torch.device, *, beside: bool = True) -> Streams:
    """Return how a device arranges the switch."""
    return Beside() if beside and device.type == "cuda" else InTurn()
