"""Time spans on a device, in ms from the start of an iteration, without stopping the device."""

from __future__ import annotations

import importlib
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
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


class Clock:
    """Marks on the device's stream: CUDA events there, the monotonic clock on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.cuda: Any = importlib.import_module("torch.cuda") if device.type == "cuda" else None
        self.begin()

    def begin(self) -> None:
        """Start an iteration: forget its spans and count from now."""
        self.origin, self.marks = self._mark(), list[tuple[str, int, Any, Any]]()

    @contextmanager
    def span(self, name: str, batch: int = 0) -> Generator[None]:
        """Measure the work that is queued inside the block."""
        start = self._mark()
        yield
        self.marks.append((name, batch, start, self._mark()))

    def spans(self) -> list[Span]:
        """Wait for the device and return this iteration's spans."""
        if self.cuda:
            self.cuda.synchronize()
        return [Span(name, b, self._since(s), self._since(e)) for name, b, s, e in self.marks]

    def now_ms(self) -> float:
        """Wait for the device and return the time since `begin`."""
        mark = self._mark()
        if self.cuda:
            self.cuda.synchronize()
        return self._since(mark)

    def _mark(self) -> Any:
        if not self.cuda:
            return time.perf_counter()
        event = self.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _since(self, mark: Any) -> float:
        return self.origin.elapsed_time(mark) if self.cuda else (mark - self.origin) * 1e3
