"""Plans and experiments as tables for the terminal."""

from collections.abc import Iterable

import msgspec
from rich.table import Table

from beta.cases import OWN, Folder
from beta.claiming import load_claims
from beta.experiments import named
from beta.plan.plans import Plan, PlannedGroup
from beta.sweeps import SUITES, grids
from common.record import Metric, latest


def plan_table(plan: Plan) -> Table:
    """Return a plan's first period as one row per group."""
    period = plan.periods[0]
    more = f", first of {len(plan.periods)} periods" if len(plan.periods) > 1 else ""
    made_up = ", on a stand-in" if plan.stand_in else ""
    table = Table(
        title=f"{plan.experiment}: {len(period.groups)} groups on {plan.devices} devices"
        f" ({plan.method}{more}{made_up})",
        title_justify="left",
    )
    for column in ("group", "devices", "op", "pp", "models", "memory GiB", "in time %"):
        table.add_column(column, justify="left" if column == "models" else "right")
    for number, group in enumerate(period.groups):
        table.add_row(*_cells(number, group, plan.memory_gib))
    return table


def _cells(number: int, group: PlannedGroup, capacity: float) -> tuple[str, ...]:
    last = group.first_device + group.op * group.pp - 1
    return (
        str(number),
        f"{group.first_device}-{last}",
        str(group.op),
        str(group.pp),
        " ".join(group.models),
        f"{group.memory_gib:.2f} of {capacity:g}",
        "–" if group.attainment is None else f"{100 * group.attainment:.2f}",
    )


def unplaced(plan: Plan) -> str:
    """Return a sentence on the models that no group holds at any time, empty if there is none."""
    held = {name for period in plan.periods for group in period.groups for name in group.models}
    missing = [model.name for model in plan.models if model.name not in held]
    if not missing:
        return ""
    shown = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if missing[8:] else "")
    return (
        f"not placed, so every request for it is refused: {shown}; give more devices or"
        " cluster.memory_gib, or a profile with weight_bytes"
    )


def served_table(metrics: Iterable[Metric]) -> Table:
    """Return what was measured of a service, and simulated beside it."""
    table = Table("figure", "value", title="service", title_justify="left")
    for metric in metrics:
        unit = "" if metric.unit == "1" else f" {metric.unit}"
        table.add_row(metric.name, f"{metric.value:.6g}{unit}")
    return table


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One named experiment with the claims it serves and what its last records cost."""

    name: str
    about: str
    suites: tuple[str, ...]
    points: int
    """Of its sweeps, all methods."""
    claims: tuple[str, ...]
    hardware: str
    wall_s: float | None
    """Of its last records together."""
    peak_rss: int | None
    """Largest of them, bytes."""


def listed(folder: Folder) -> list[Listed]:
    """Return all named experiments."""
    claims = load_claims()
    records = [r for suite in (*SUITES, OWN) for r in latest(folder.records(suite).read())]
    rows = list[Listed]()
    for name, experiment in named().items():
        mine = [record for record in records if record.experiment == name]
        grid = grids().get(name)
        swept = sum(map(len, grid.sweeps.values())) * len(grid.methods) if grid else 0
        rows.append(
            Listed(
                name=name,
                about=experiment.about,
                suites=tuple(s for s, figures in SUITES.items() if name in figures),
                points=swept,
                claims=tuple(claim.id for claim in claims if claim.experiment == name),
                hardware="CPU",
                wall_s=sum(record.wall_s for record in mine) if mine else None,
                peak_rss=max(record.peak_rss for record in mine) if mine else None,
            )
        )
    return rows


def listed_table(rows: Iterable[Listed]) -> Table:
    """Return the listing as a table."""
    table = Table("experiment", "suites", "points", "claims", "about", "wall s", "peak MB")
    for row in rows:
        table.add_row(
            row.name,
            " ".join(row.suites),
            str(row.points or ""),
            str(len(row.claims)),
            row.about,
            "" if row.wall_s is None else f"{row.wall_s:.1f}",
            "" if row.peak_rss is None else f"{row.peak_rss / 1e6:.0f}",
        )
    return table
