"""What a simulation leaves: a Perfetto trace, the schedule and the memory as pictures."""

from pathlib import Path

from common.artifact import Folder
from common.trace import Event, counter, group, row, span, write_trace
from vocab_parallel.plan.plans import Plan
from vocab_parallel.simulate.activations import activations_over_time
from vocab_parallel.simulate.memory import GIB
from vocab_parallel.simulate.predict import Prediction


def export(plan: Plan, prediction: Prediction, name: str, folder: Folder) -> tuple[Path, ...]:
    """Write `traces/`, `figures/*.schedule` and `figures/*.memory` and return the files."""
    from common.figure import save, style
    from vocab_parallel.simulate.figure import draw_memory, draw_schedule

    stem = f"{name}.{plan.method}"
    trace = write_trace(folder.at("traces", f"{stem}.json"), events(plan, prediction))
    with style():
        schedule = save(draw_schedule(plan, prediction), folder.at("figures", f"{stem}.schedule"))
        memory = save(draw_memory(plan, prediction), folder.at("figures", f"{stem}.memory"))
    return trace, *schedule, *memory


def events(plan: Plan, prediction: Prediction) -> list[Event]:
    """Return the passes and live activations of every rank (`common.trace`)."""
    rows = [group(plan.method, 0)]
    played, schedule = prediction.played, plan.schedule
    for rank, program in enumerate(schedule.programs):
        rows.append(row(f"rank {rank}", 0, rank))
        held = activations_over_time(plan, rank)
        spans = zip(program, played.starts[rank], played.ends[rank], held, strict=True)
        for item, start, end, live in spans:
            args = {"micro-batch": item.batch, "chunk": item.chunk}
            name, seconds = schedule.label(item), end - start
            rows.append(span(name, 0, rank, start, seconds, kind=item.kind, args=args))
            when = start if item.kind == "F" else end
            rows.append(counter(f"activations, rank {rank}", 0, when, {"GiB": live / GIB}))
    return rows
