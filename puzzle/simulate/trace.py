"""Timelines one after the other as a Perfetto trace (`common.trace`), a row for each rank."""

from collections.abc import Mapping
from pathlib import Path

from common import trace
from common.trace import Event, group, row, span
from puzzle.simulate.timeline import Timeline


def events(timelines: Mapping[str, Timeline]) -> list[Event]:
    """Return every pass that takes time, after the names of the rows."""
    ranks = max(timeline.schedule.stages for timeline in timelines.values())
    found = [group("pipeline of one replica", 0)]
    found += [row(f"pipeline rank {rank}", 0, rank) for rank in range(ranks)]
    offset = 0.0
    for name, timeline in timelines.items():
        for rank in range(timeline.schedule.stages):
            for item, start, end in timeline.of(rank):
                kind = f"{name},{item.model}"
                found.append(span(str(item), 0, rank, offset + start, end - start, kind=kind))
        offset += timeline.seconds
    return found


def write_trace(timelines: Mapping[str, Timeline], path: Path) -> Path:
    """Write the trace and return its path."""
    return trace.write_trace(path, events(timelines))
