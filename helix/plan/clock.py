"""The time of a search: a limit that compiled code keeps too, and Ctrl-C.

Kernels hold no interpreter lock and hear no signal, so they look at a flag in an array. A timer
raises it when time is over; so does Ctrl-C, which then goes on as `KeyboardInterrupt`.
"""

import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Self

import numpy as np
from numpy.typing import NDArray

NEVER = np.zeros(1, np.int64)
"""The flag of what is not to be stopped."""


class Clock:
    """When a search began and how many seconds it may take; a context that keeps a timer."""

    def __init__(self, limit_s: float, whole: "Clock | None" = None) -> None:
        """Begin now, as a part of the `whole` if there is one."""
        self.begin, self.limit_s = time.monotonic(), limit_s
        self.flag: NDArray[np.int64] = np.zeros(1, np.int64)
        self._whole, self._pressed = whole, False
        self._parts = list[Clock]()
        self._turn = threading.Event()
        self._turn.set()

    def __enter__(self) -> Self:
        """Start the timer."""
        self._timer = threading.Timer(min(self.left(), threading.TIMEOUT_MAX), self.stop)
        self._timer.daemon = True
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the timer."""
        self._timer.cancel()

    def seconds(self) -> float:
        """Return the seconds since the beginning."""
        return time.monotonic() - self.begin

    def left(self) -> float:
        """Return the seconds that are left, 0 where none are."""
        return 0.0 if self.flag[0] else max(self.limit_s - self.seconds(), 0.0)

    def over(self) -> bool:
        """Say whether time is up, or the search was stopped; not before a pause has ended."""
        self._turn.wait()
        return bool(self.flag[0]) or self.seconds() >= self.limit_s

    def stop(self) -> None:
        """Raise the flag here and in all parts."""
        self.flag[0] = 1
        self._turn.set()
        for part in self._parts:
            part.stop()

    def pause(self) -> None:
        """Let those who ask whether time is up wait: until `go_on`, or until it is."""
        if not self.flag[0]:
            self._turn.clear()

    def go_on(self) -> None:
        """End a pause."""
        self._turn.set()

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C has stopped the search."""
        return self._whole.interrupted if self._whole else self._pressed

    def interrupt(self) -> None:
        """Stop all of the search because of Ctrl-C."""
        if self._whole:
            self._whole.interrupt()
        else:
            self._pressed = True
            self.stop()

    def part(self, seconds: float) -> "Clock":
        """Return a clock of so many seconds from now that ends with this one at the latest."""
        part = Clock(min(seconds, self.left()), self)
        self._parts.append(part)
        if self.over():
            part.stop()
        return part


@contextmanager
def heard(clock: Clock) -> Generator[None]:
    """Stop the clock on Ctrl-C, then go on as usual; outside the main thread do nothing."""
    before = signal.getsignal(signal.SIGINT)

    def pressed(number: int, frame: FrameType | None) -> None:
        clock.interrupt()
        before(number, frame)  # pyright: ignore[reportCallIssue, reportOptionalCall]

    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, pressed)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
