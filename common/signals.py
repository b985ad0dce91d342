"""End a case when its time is over, and lose no Ctrl-C."""

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from common.errors import CaseError


@contextmanager
def limited(limit_s: float | None) -> Generator[None]:
    """Raise CaseError in the block (of the main thread) when its time is over."""

    def over(*_: object) -> None:
        raise CaseError(f"the case took longer than its limit of {limit_s:g} s")

    if limit_s is None:
        yield
        return
    before = signal.signal(signal.SIGALRM, over)
    left = signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *left)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def interruptible() -> Generator[Callable[[], None]]:
    """Yield what raises a Ctrl-C that got lost: in a finaliser or a callback (numba has many)."""
    pressed, before = list[int](), signal.getsignal(signal.SIGINT)

    def remember(number: int, frame: Any) -> None:
        pressed.append(number)
        before(number, frame)  # pyright: ignore[reportCallIssue, reportOptionalCall]

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    heard = callable(before) and threading.current_thread() is threading.main_thread()
    if heard:
        signal.signal(signal.SIGINT, remember)
    try:
        yield check
    finally:
        if heard:
            signal.signal(signal.SIGINT, before)
