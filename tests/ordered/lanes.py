"""What carries out entries in order: a communicator's queue, and a stream beside the host."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.ordered.entries import Entry

if TYPE_CHECKING:
    from tests.ordered.desk import Desk

_TICK_S = 0.1


class Lane:
    """A communicator's queue on one rank: one worker carries out its entries in order."""

    def __init__(self, desk: Desk, name: str) -> None:
        self.desk, self.name = desk, name
        self.waiting: deque[Entry] = deque()
        threading.Thread(target=self._work, daemon=True).start()

    def post(self, entry: Entry) -> None:
        """Put an entry at the end."""
        with self.desk.changing():
            self.waiting.append(entry)

    def _work(self) -> None:
        while True:
            with self.desk.changed:
                while not self.waiting:
                    self.desk.changed.wait()
                entry = self.waiting[0]
            if entry.after is not None:
                entry.after.wait()
            try:
                works = [part.start() for part in entry.parts]
                for part, work in zip(entry.parts, works, strict=True):
                    work.wait()
                    with self.desk.changing():
                        part.over = True
                        self.desk.finished[self.name, part.route] += 1
            except BaseException as error:
                entry.error = error
            with self.desk.changing():
                self.waiting.popleft()
                entry.over.set()


class Beside:
    """A stream beside the host: what CUDA's side streams are to a runtime, as a thread.

    Entries are done in order while the host goes on. What is posted inside `entered` stands in its
    queue at once and begins when the entries before it are over.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk, self.name = desk, f"side-{len(desk.sides)}"
        self.entries: deque[tuple[Callable[[], object], threading.Event]] = deque()
        self.error: BaseException | None = None
        self.tail = threading.Event()
        self.tail.set()
        desk.sides.append(self)
        threading.Thread(target=self._work, name=self.name, daemon=True).start()

    @contextmanager
    def entered(self, *_: object) -> Iterator[None]:
        """Post on this stream."""
        self.desk.entered = self
        yield
        self.desk.entered = None

    def do(self, entry: Callable[[], object]) -> None:
        """Have an entry done after those before it."""
        with self.desk.changing():
            self.tail = threading.Event()
            self.entries.append((entry, self.tail))

    def join(self) -> None:
        """Hold the host until all entries are over."""
        with self.desk.changing():
            self.desk.joining = self
        while not self.tail.wait(_TICK_S):
            self.desk.check()
        with self.desk.changing():
            self.desk.joining = None
        if self.error is not None:
            raise self.error

    def _work(self) -> None:
        while True:
            with self.desk.changed:
                while not self.entries:
                    self.desk.changed.wait()
                entry, over = self.entries.popleft()
            try:
                entry()
            except BaseException as error:
                self.error = error
            with self.desk.changing():
                over.set()
