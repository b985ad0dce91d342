"""One rank's queues and what its host waits for, published so that a stall is known for certain.

Every change raises a counter in memory that all ranks share. A rank whose host waits and whose
counter has stood still publishes its queues with the counter. Rank 0 reads what all have published
and then all counters: where each still has the published value, all these states held at one
moment, and where nothing can move in them nothing ever will. No time limit is needed.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.ordered.entries import Entry
from tests.ordered.lanes import Beside, Lane
from tests.ordered.stall import Published, describe, is_stalled

TICK_S = 0.1
_FOUND = "stall.txt"
_HOST = threading.main_thread().name
_NUMBER = struct.Struct("q")


class Stall(RuntimeError):
    """Nothing can move any more; the message has the head of every rank's queue."""


class Desk:
    """All queues of one rank, its host's state, and the watch over them."""

    def __init__(self, folder: Path, rank: int, world: int) -> None:
        self.folder, self.rank, self.world = folder, rank, world
        self.changed = threading.Condition()
        self.lanes: dict[str, Lane] = {}
        self.finished: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.connected: set[str] = set()
        self.awaited: dict[str, Entry] = {}
        self.sides: list[Beside] = []
        self.entered: Beside | None = None
        self.joining: Beside | None = None
        self.connecting: list[tuple[str, list[int]]] = []
        self.posts: list[tuple[str, str]] = []
        self.version = 0
        with (folder / "counters").open("r+b") as file:
            self.counters = mmap.mmap(file.fileno(), world * _NUMBER.size)
        self.said = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def changing(self) -> _Changing:
        """Change something; every rank can see that it was changed."""
        return _Changing(self)

    def lane(self, name: str) -> Lane:
        """Return a communicator's queue, made when it is first asked for."""
        if name not in self.lanes:
            self.lanes[name] = Lane(self, name)
        return self.lanes[name]

    def hold(self, entry: Entry) -> None:
        """Hold this thread until an entry is over; raise where that will never be."""
        me = threading.current_thread().name
        if not entry.over.is_set():
            with self.changing():
                self.awaited[me] = entry
            while not entry.over.wait(TICK_S):
                self.check()
            with self.changing():
                del self.awaited[me]
        if entry.error is not None:
            raise entry.error

    def connect(self, routes: list[tuple[str, list[int]]], meet: Callable[[], None]) -> None:
        """Hold the host while `meet` waits for the ranks of new routes, by their names."""
        with self.changing():
            self.connecting = routes
        entry = Entry([])

        def work() -> None:
            try:
                meet()
            except BaseException as error:
                entry.error = error
            entry.over.set()

        threading.Thread(target=work, daemon=True).start()
        while not entry.over.wait(TICK_S):
            self.check()
        if entry.error is not None:
            raise entry.error
        with self.changing():
            self.connecting = []
            self.connected |= {name for name, _ in routes}

    def check(self) -> None:
        """Raise where a stall was found."""
        if self.said.is_set():
            raise Stall((self.folder / _FOUND).read_text())

    def _watch(self) -> None:
        before = published = -1
        while not self.said.is_set():
            time.sleep(TICK_S)
            with self.changed:
                now, state = self.version, self._state()
            if now == before and now != published and state is not None:
                _replace(self.folder / f"{self.rank}.json", json.dumps([now, state]))
                published = now
            before = now
            if self.rank == 0:
                self._look()
            if (self.folder / _FOUND).exists():
                self.said.set()

    def _look(self) -> None:
        """Read what all ranks have published; say so where it cannot move."""
        found: list[tuple[int, Any]] = []
        for rank in range(self.world):
            path = self.folder / f"{rank}.json"
            if not path.exists():
                return
            found.append(json.loads(path.read_text()))
        states = [Published.of(state) for _, state in found]
        if is_stalled(states) and [number for number, _ in found] == self._numbers():
            _replace(self.folder / _FOUND, describe(states))

    def _numbers(self) -> list[int]:
        size = _NUMBER.size
        return [_NUMBER.unpack_from(self.counters, rank * size)[0] for rank in range(self.world)]

    def _waits(self, thread: str) -> bool:
        return thread in self.awaited and not self.awaited[thread].over.is_set()

    def _host_waits(self) -> bool:
        if self.joining is not None:
            return not self.joining.tail.is_set()
        return bool(self.connecting) or self._waits(_HOST)

    def _state(self) -> dict[str, object] | None:
        """Return the queues while all that works here waits for others, else None."""
        busy = [side for side in self.sides if not side.tail.is_set()]
        if not self._host_waits() or not all(self._waits(side.name) for side in busy):
            return None
        waiting = self.awaited.get(self.joining.name if self.joining else _HOST)
        queues = {}
        awaited = None
        for name, lane in self.lanes.items():
            entries = [entry for entry in lane.waiting if not entry.over.is_set()]
            if waiting in entries:
                awaited = name, entries.index(waiting)
            queues[name] = [
                [
                    (part.words, part.route, part.number, part.ranks, entry.ready)
                    for part in entry.parts
                    if not part.over
                ]
                for entry in entries
            ]
        return {
            "queues": queues,
            "finished": [(*key, count) for key, count in self.finished.items()],
            "connected": sorted(self.connected),
            "connecting": self.connecting,
            "awaited": awaited,
        }


class _Changing:
    """Holds the desk's lock; on the way out the counter is raised and all are told."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def __enter__(self) -> None:
        self.desk.changed.acquire()

    def __exit__(self, *_: object) -> None:
        desk = self.desk
        desk.version += 1
        _NUMBER.pack_into(desk.counters, desk.rank * _NUMBER.size, desk.version)
        desk.changed.notify_all()
        desk.changed.release()


def make_counters(folder: Path, world: int) -> None:
    """Make what the ranks share before they start."""
    (folder / "counters").write_bytes(bytes(world * _NUMBER.size))


def found_stall(folder: Path) -> str:
    """Return the stall that the ranks found, or nothing."""
    path = folder / _FOUND
    return path.read_text() if path.exists() else ""


def _replace(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text)
    os.replace(beside, path)  # noqa: PTH105  read by other processes: whole, or as it was
