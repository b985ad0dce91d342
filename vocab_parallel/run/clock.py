"""Time spans on a device, in ms from the start of an iteration, without stopping the device."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch


class Span(NamedTuple):
    """One measured piece of work; `name` is F, B, all-reduce or update."""

    name: str
    batch: int
    start_ms: float
    end_ms: float

    @property
    def duration_ms(self) -> float:
        """Length of the span."""
        return self.end_ms - self.start_ms


Mark = float | torch.cuda.Event


class Clock:
    """Marks on the device's stream: CUDA events there, the monotonic clock on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.begin()

    def begin(self) -> None:
        """Start an iteration: forget its spans and count from now."""
        self.origin = self._mark()
        self.marks: list[tuple[str, int, Mark, Mark]] = []

    @contextmanager
    def span(self, name: str, batch: int = 0) -> Iterator[None]:
        """Measure the work that is queued inside the block."""
        start = self._mark()
        yield
        self.marks.append((name, batch, start, self._mark()))

    def spans(self) -> list[Span]:
        """Wait for the device and return this iteration's spans."""
        if self.cuda:
            torch.cuda.synchronize()
        return [
            Span(name, batch, self._since_origin(start), self._since_origin(end))
            for name, batch, start, end in self.marks
        ]

    def now_ms(self) -> float:
        """Wait for the device and return the time since `begin`."""
        mark = self._mark()
        if self.cuda:
            torch.cuda.synchronize()
        return self._since_origin(mark)

    def _mark(self) -> Mark:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _since_origin(self, mark: Mark) -> float:
        if isinstance(self.origin, torch.cuda.Event):
            assert isinstance(mark, torch.cuda.Event)
            return self.origin.elapsed_time(mark)
        assert not isinstance(mark, torch.cuda.Event)
        return (mark - self.origin) * 1e3
