"""A timeline as a Perfetto trace (`common.trace`).

Process 0 is the pipeline with one thread per stage; process 1 the links with one per direction.
"""

from pathlib import Path

from common import trace
from common.trace import Event, group, row, span
from metis.plan.plans import Plan
from metis.simulate.timeline import Timeline

_S_PER_MS = 1e-3


def events(plan: Plan, timeline: Timeline) -> list[Event]:
    """Return the timeline as complete (X) events after the names (M) of their rows."""
    rows = [group("pipeline", 0)]
    for number, stage in enumerate(plan.stages):
        layers = f"layers {stage.first_layer}-{stage.end_layer - 1}"
        rows.append(row(f"stage {number}: {layers}, dp{stage.dp} tp{stage.tp}", 0, number))
    for item in timeline.passes:
        kind = "forward" if item.kind == "F" else "backward"
        name, args = f"{item.kind}{item.batch}", {"micro-batch": item.batch}
        rows.append(_span(name, 0, item.stage, item.start_ms, item.end_ms, kind, args))
    for end in timeline.finishes:
        rows += [
            _span("all-reduce", 0, end.stage, end.start_ms, end.reduced_ms, "finish", {}),
            _span("update", 0, end.stage, end.reduced_ms, end.updated_ms, "finish", {}),
        ]
    return rows + _links(timeline)


def write_trace(plan: Plan, timeline: Timeline, path: Path) -> None:
    """Write the trace."""
    trace.write_trace(path, events(plan, timeline))


def _links(timeline: Timeline) -> list[Event]:
    directions = sorted({(item.source, item.target) for item in timeline.transfers})
    rows = [group("links", 1)] if directions else []
    for number, (source, target) in enumerate(directions):
        rows.append(row(f"stage {source} to {target}", 1, number))
    for item in timeline.transfers:
        where = directions.index((item.source, item.target))
        what = "activations" if item.kind == "F" else "gradients"
        name, args = f"{what} {item.batch}", {"micro-batch": item.batch}
        rows.append(_span(name, 1, where, item.start_ms, item.end_ms, "transfer", args))
    return rows


def _span(
    name: str, pid: int, tid: int, start_ms: float, end_ms: float, kind: str, args: dict[str, int]
) -> Event:
    begin, seconds = start_ms * _S_PER_MS, (end_ms - start_ms) * _S_PER_MS
    return span(name, pid, tid, begin, seconds, kind=kind, args=args)
