"""What stands in a queue: one operation, or several that were posted as one batch."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import FrameType

import torch.distributed as dist

_MOST_FRAMES = 14
"""How far up the purpose of an operation is looked for."""
_PLUMBING = ("torch", "tests.ordered.entries", "tests.ordered.group")
"""Modules whose functions say nothing about what an operation is for."""


class Part:
    """One operation: a send, a receive, or a collective of all ranks of its group.

    `number` counts what went the same `route` through the same communicator before it. `start`
    begins the transfer and returns what can be waited for.
    """

    def __init__(
        self, words: str, route: str, number: int, ranks: list[int], start: Callable[[], dist.Work]
    ) -> None:
        self.words, self.route, self.number, self.ranks = words, route, number, ranks
        self.start = start
        self.over = False


class Entry:
    """What a queue carries out as one: its parts progress together.

    It begins after what the stream had to do on which it was posted (`after`).
    """

    def __init__(self, parts: list[Part], after: threading.Event | None = None) -> None:
        self.parts, self.after = parts, after
        self.over = threading.Event()
        self.error: BaseException | None = None

    @property
    def ready(self) -> bool:
        """Say whether what it comes after is over."""
        return self.after is None or self.after.is_set()

    @property
    def words(self) -> str:
        """The operation in words."""
        return " + ".join(part.words for part in self.parts)


def purpose() -> str:
    """Return what the caller's own variables say an operation is for: F3, or its function's name.

    A pass or message is looked for in the variables `message`, `coming` and `item` (or `kind` and
    `batch`) of the functions that led here, so that the runtimes need not name what they send.
    """
    frame: FrameType | None = sys._getframe(1)
    name = ""
    for _ in range(_MOST_FRAMES):
        if frame is None:
            break
        module = str(frame.f_globals.get("__name__", ""))
        if not module.startswith(_PLUMBING):
            found = _found(frame.f_locals)
            if found:
                return found
            name = name or frame.f_code.co_name
        frame = frame.f_back
    return f"({name})"


def _found(variables: dict[str, object]) -> str:
    for name in ("message", "coming", "item"):
        value = variables.get(name)
        kind = getattr(value, "kind", None) or getattr(value, "what", None)
        batch = getattr(value, "batch", None)
        if kind is None and isinstance(value, tuple) and len(value) == 2:
            kind, batch = value
        if isinstance(kind, str) and isinstance(batch, int):
            return f"{kind}{batch}"
    kind, batch = variables.get("kind"), variables.get("batch")
    if isinstance(kind, str) and isinstance(batch, int):
        return f"{kind}{batch}"
    return ""
