"""A timeline in the Chrome trace format: open the file at https://ui.perfetto.dev.

Process 0 is the pipeline with one thread per stage; process 1 the links with one per direction.
"""

from pathlib import Path
from typing import TypedDict

import msgspec

from metis.plan.plans import Plan
from metis.simulate.timeline import Timeline

_US_PER_MS = 1000.0


class Event(TypedDict, total=False):
    """One entry of `traceEvents`; `ts` and `dur` in microseconds."""

    name: str
    cat: str
    ph: str
    ts: float
    dur: float
    pid: int
    tid: int
    args: dict[str, str | int]


def events(plan: Plan, timeline: Timeline) -> list[Event]:
    """Return the timeline as complete (X) events after the names (M) of their rows."""
    rows = [_name("process_name", 0, 0, "pipeline")]
    for number, stage in enumerate(plan.stages):
        layers = f"layers {stage.first_layer}-{stage.end_layer - 1}"
        rows.append(
            _name("thread_name", 0, number, f"stage {number}: {layers}, dp{stage.dp} tp{stage.tp}")
        )
    for item in timeline.passes:
        args: dict[str, str | int] = {"micro-batch": item.batch}
        name, kind = f"{item.kind}{item.batch}", "forward" if item.kind == "F" else "backward"
        rows.append(_span(name, kind, 0, item.stage, item.start_ms, item.end_ms, args))
    for end in timeline.finishes:
        rows += [
            _span("all-reduce", "finish", 0, end.stage, end.start_ms, end.reduced_ms, {}),
            _span("update", "finish", 0, end.stage, end.reduced_ms, end.updated_ms, {}),
        ]
    return rows + _links(timeline)


def write_trace(plan: Plan, timeline: Timeline, path: Path) -> None:
    """Write the trace as one JSON object."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"traceEvents": events(plan, timeline), "displayTimeUnit": "ms"}
    path.write_bytes(msgspec.json.encode(content) + b"\n")


def _links(timeline: Timeline) -> list[Event]:
    directions = sorted({(item.source, item.target) for item in timeline.transfers})
    rows = [_name("process_name", 1, 0, "links")] if directions else []
    for number, (source, target) in enumerate(directions):
        rows.append(_name("thread_name", 1, number, f"stage {source} to {target}"))
    for item in timeline.transfers:
        row = directions.index((item.source, item.target))
        what = "activations" if item.kind == "F" else "gradients"
        args: dict[str, str | int] = {"micro-batch": item.batch}
        name = f"{what} {item.batch}"
        rows.append(_span(name, "transfer", 1, row, item.start_ms, item.end_ms, args))
    return rows


def _name(what: str, pid: int, tid: int, name: str) -> Event:
    return {"name": what, "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}}


def _span(
    name: str,
    category: str,
    pid: int,
    tid: int,
    start_ms: float,
    end_ms: float,
    args: dict[str, str | int],
) -> Event:
    return {
        "name": name,
        "cat": category,
        "ph": "X",
        "ts": start_ms * _US_PER_MS,
        "dur": (end_ms - start_ms) * _US_PER_MS,
        "pid": pid,
        "tid": tid,
        "args": args,
    }
