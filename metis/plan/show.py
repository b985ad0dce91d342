"""A plan as a table for the terminal."""

from collections import Counter
from collections.abc import Iterable

from rich.table import Table

from metis.plan.plans import Plan, Stage


def plan_table(plan: Plan) -> Table:
    """Return a plan as one row per stage."""
    table = Table(
        title=f"{plan.experiment}: {plan.cost_ms:.3f} ms per iteration,"
        f" {plan.batches} micro-batches, {len(plan.stages)} stages ({plan.method}, {plan.mode})",
        title_justify="left",
    )
    columns = ("stage", "devices", "ranks", "dp", "tp", "layers", "samples", "time ms", "memory")
    for column in columns:
        table.add_column(column, justify="left" if column in ("devices", "samples") else "right")
    saves = any(stage.sharded or stage.recompute != "none" for stage in plan.stages)
    if saves:
        table.add_column("saves by")
    for number, stage in enumerate(plan.stages):
        table.add_row(*_cells(number, stage), *([_savings(stage)] if saves else []))
    return table


def _savings(stage: Stage) -> str:
    """Return what a stage does to save memory: its recomputation, a sharded optimizer."""
    recompute = [stage.recompute] if stage.recompute != "none" else []
    return ", ".join([*recompute, *(["sharded"] if stage.sharded else [])])


def _cells(number: int, stage: Stage) -> tuple[str, ...]:
    last = stage.first_rank + stage.devices - 1
    return (
        str(number),
        _counted(stage.device_types),
        f"{stage.first_rank}-{last}",
        str(stage.dp),
        str(stage.tp),
        f"{stage.first_layer}-{stage.end_layer - 1}",
        _counted(stage.samples),
        f"{stage.execution_ms:.2f}",
        f"{_size(stage.memory_mb)} of {_size(stage.capacity_mb)}",
    )


def _size(megabytes: float) -> str:
    return f"{megabytes / 1024:.1f}G" if megabytes >= 1024 else f"{megabytes:.1f}M"


def _counted(values: Iterable[object]) -> str:
    return " + ".join(f"{times} x {value}" for value, times in Counter(values).items())
