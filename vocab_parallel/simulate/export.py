"""What a simulation leaves: a Perfetto trace, the schedule and the memory as pictures."""

from pathlib import Path
from typing import Any

import msgspec

from vocab_parallel.plan.plans import Plan
from vocab_parallel.simulate.memory import GIB, activations_over_time
from vocab_parallel.simulate.predict import Prediction

_US = 1e6


def export(plan: Plan, prediction: Prediction, name: str, home: Path) -> tuple[Path, ...]:
    """Write `traces/`, `figures/*.schedule` and `figures/*.memory` and return the files."""
    from common.figure import save, style
    from vocab_parallel.simulate.figure import draw_memory, draw_schedule

    stem = f"{name}.{plan.method}"
    trace = home / "traces" / f"{stem}.json"
    trace.parent.mkdir(parents=True, exist_ok=True)
    content = {"traceEvents": events(plan, prediction), "displayTimeUnit": "ms"}
    trace.write_bytes(msgspec.json.encode(content) + b"\n")
    with style():
        schedule = save(draw_schedule(plan, prediction), home / "figures" / f"{stem}.schedule")
        memory = save(draw_memory(plan, prediction), home / "figures" / f"{stem}.memory")
    return trace, *schedule, *memory


def events(plan: Plan, prediction: Prediction) -> list[dict[str, Any]]:
    """Return the passes (X) and live activations (C) of every rank in the Chrome trace format.

    Open the file at https://ui.perfetto.dev; times are in microseconds.
    """
    rows: list[dict[str, Any]] = [
        {"name": "process_name", "ph": "M", "pid": 0, "tid": 0, "args": {"name": plan.method}}
    ]
    played, schedule = prediction.played, plan.schedule
    for rank, program in enumerate(schedule.programs):
        rows.append(
            {
                "name": "thread_name",
                "ph": "M",
                "pid": 0,
                "tid": rank,
                "args": {"name": f"rank {rank}"},
            }
        )
        held = activations_over_time(plan, rank)
        spans = zip(program, played.starts[rank], played.ends[rank], held, strict=True)
        for item, start, end, live in spans:
            rows.append(
                {
                    "name": schedule.label(item),
                    "cat": item.kind,
                    "ph": "X",
                    "ts": start * _US,
                    "dur": (end - start) * _US,
                    "pid": 0,
                    "tid": rank,
                    "args": {"micro-batch": item.batch, "chunk": item.chunk},
                }
            )
            rows.append(
                {
                    "name": f"activations, rank {rank}",
                    "ph": "C",
                    "ts": (start if item.kind == "F" else end) * _US,
                    "pid": 0,
                    "args": {"GiB": live / GIB},
                }
            )
    return rows
