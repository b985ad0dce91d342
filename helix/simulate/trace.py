"""What happened when, in the Chrome trace format: open the file at https://ui.perfetto.dev.

Process 0 holds the machines, one thread each; process 1 the links. KV cache and queue of every
machine stand beside as counters.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from common import trace
from common.trace import Event, counter, group, row
from helix.inputs.cluster import place_name
from helix.simulate.system import System

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
) -> list[Event]:
    """Return the spans that overlap a time as complete (X) events after the names (M) of rows."""
    kept = [s for s in spans if s.begin_s <= end_s and s.begin_s + s.seconds >= begin_s]
    rows = [group("machines", PROCESS["node"]), group("links", PROCESS["link"])]
    for what, where in sorted({(span.what, span.where) for span in kept}):
        rows.append(row(_title(system, what, where), PROCESS[what], where))
    for s in kept:
        place = PROCESS[s.what], s.where
        rows.append(trace.span(s.name, *place, s.begin_s, s.seconds, kind=s.what, args=s.sizes))
    return rows + [
        counter(f"machine {place_name(s.where)}: {name}", PROCESS["node"], s.begin_s,
                {name: s.sizes[name]})
        for s in kept
        if s.what == "node"
        for name in (KV_ENTRIES, WAITING)
    ]  # fmt: skip


def _title(system: System, what: str, where: int) -> str:
    if what == "link":
        tail, head = int(system.tail[where]), int(system.head[where])
        return f"{place_name(tail)} to {place_name(head)}"
    return f"machine {place_name(where)}: layers {system.first[where]}-{system.end[where] - 1}"
