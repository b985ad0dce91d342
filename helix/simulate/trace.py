"""What happened when, in the Chrome trace format: open the file at https://ui.perfetto.dev.

Process 0 holds the machines, one thread each; process 1 the links. KV cache and queue of every
machine stand beside as counters.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from helix.inputs.cluster import place_name
from helix.simulate.system import System

US_PER_S = 1e6
KV_ENTRIES, WAITING = "KV entries", "waiting"
PROCESS = {"node": 0, "link": 1}


class Span(msgspec.Struct, frozen=True):
    """Something that took time: a layer at a place, or a transfer on a link; seconds."""

    what: Literal["node", "link"]
    where: int
    name: str
    begin_s: float
    seconds: float
    sizes: dict[str, int]


def trace_events(
    system: System, spans: Sequence[Span], begin_s: float = 0.0, end_s: float = float("inf")
) -> list[dict[str, object]]:
    """Return the spans that overlap a time as complete (X) events after the names (M) of rows."""
    kept = [s for s in spans if s.begin_s <= end_s and s.begin_s + s.seconds >= begin_s]
    rows = [_row("process_name", 0, 0, "machines"), _row("process_name", 1, 0, "links")]
    for what, where in sorted({(span.what, span.where) for span in kept}):
        rows.append(_row("thread_name", PROCESS[what], where, _title(system, what, where)))
    return rows + [
        {
            "name": span.name,
            "cat": span.what,
            "ph": "X",
            "ts": span.begin_s * US_PER_S,
            "dur": span.seconds * US_PER_S,
            "pid": PROCESS[span.what],
            "tid": span.where,
            "args": span.sizes,
        }
        for span in kept
    ] + [
        {
            "name": f"machine {place_name(span.where)}: {counter}",
            "ph": "C",
            "ts": span.begin_s * US_PER_S,
            "pid": PROCESS["node"],
            "args": {counter: span.sizes[counter]},
        }
        for span in kept
        if span.what == "node"
        for counter in (KV_ENTRIES, WAITING)
    ]  # fmt: skip


def write_trace(path: Path, events: Sequence[dict[str, object]]) -> None:
    """Write the trace as one JSON object."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"traceEvents": events, "displayTimeUnit": "ms"}
    path.write_bytes(msgspec.json.encode(content) + b"\n")


def _title(system: System, what: str, where: int) -> str:
    if what == "link":
        tail, head = int(system.tail[where]), int(system.head[where])
        return f"{place_name(tail)} to {place_name(head)}"
    return f"machine {place_name(where)}: layers {system.first[where]}-{system.end[where] - 1}"


def _row(what: str, pid: int, tid: int, name: str) -> dict[str, object]:
    return {"name": what, "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}}
