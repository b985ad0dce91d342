"""Write what happened when in the Chrome trace format: open the file at https://ui.perfetto.dev.

An event belongs to a process (`pid`, a group of rows) and a thread (`tid`, a row). Times: seconds.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from common.files import write

US_PER_S = 1e6
Event = dict[str, Any]


def group(name: str, pid: int) -> Event:
    """Name a process."""
    return {"name": "process_name", "ph": "M", "pid": pid, "tid": 0, "args": {"name": name}}


def row(name: str, pid: int, tid: int) -> Event:
    """Name a thread."""
    return {"name": "thread_name", "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}}


def span(
    name: str, pid: int, tid: int, begin_s: float, seconds: float, *, kind: str = "",
    args: Mapping[str, Any] | None = None,
) -> Event:  # fmt: skip
    """Return something that took time; `kind` is what it is coloured and filtered by."""
    when = {"ts": begin_s * US_PER_S, "dur": max(0.0, seconds) * US_PER_S, "pid": pid, "tid": tid}
    return {"name": name, "cat": kind, "ph": "X", **when, "args": dict(args or {})}


def counter(name: str, pid: int, when_s: float, values: Mapping[str, float]) -> Event:
    """Return a quantity's value from a moment on."""
    return {"name": name, "ph": "C", "ts": when_s * US_PER_S, "pid": pid, "args": dict(values)}


def instant(name: str, pid: int, tid: int, when_s: float) -> Event:
    """Return a moment that all rows show."""
    return {"name": name, "ph": "i", "s": "g", "ts": when_s * US_PER_S, "pid": pid, "tid": tid}


def write_trace(path: Path, events: Iterable[Event]) -> Path:
    """Write the events as one JSON object and return its path."""
    content = {"traceEvents": list(events), "displayTimeUnit": "ms"}
    return write(path, msgspec.json.encode(content) + b"\n")
