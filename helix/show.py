"""Plans and experiments as tables for the terminal."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec
from rich.table import Table

from common.record import Record, latest
from helix.cases import OWN, PERCENTILES, Done, Folder
from helix.claiming import load_claims
from helix.experiments import SUITES, named
from helix.inputs.cluster import FIRST
from helix.inputs.experiment import Experiment
from helix.plan.placement import UNUSED
from helix.plan.plans import Plan

if TYPE_CHECKING:
    from helix.sweep import Point


def plan_table(plan: Plan) -> Table:
    """Return which machine holds which layers, and what passes through it."""
    table = Table(
        title=f"{plan.experiment}: {plan.flow:.2f} tokens/s of at most {plan.bound:.2f}"
        f" ({plan.method}, {plan.objective})",
        title_justify="left",
    )
    for column in ("service", "machine", "kind", "layers", "tokens/s", "share", "next"):
        table.add_column(column, justify="right" if column in ("tokens/s", "share") else "left")
    for service in plan.services:
        order = sorted(range(len(service.machines)), key=lambda i: service.intervals[i])
        for i in order:
            first, end = service.intervals[i]
            if (first, end) == UNUSED:
                machine = service.machines[i]
                table.add_row(service.name, str(machine), plan.machines[machine], "unused")
                continue
            through = sum(r.flow for r in service.routes if r.tail == i + FIRST)
            following = [
                "out" if r.head < FIRST else str(service.machines[r.head - FIRST])
                for r in service.routes
                if r.tail == i + FIRST and (r.flow > 0 or service.flow <= 0)
            ]
            table.add_row(
                service.name,
                str(service.machines[i]),
                plan.machines[service.machines[i]],
                f"{first}-{end - 1}",
                f"{through:.1f}",
                f"{through / service.flow:.2f}" if service.flow > 0 else "",
                " ".join(following),
            )
    return table


def latency_table(record: Record) -> Table:
    """Return a simulation's throughput and latencies."""
    values = {metric.name: metric.value for metric in record.metrics}
    table = Table("", *PERCENTILES, "mean")
    for phase in ("prompt", "decode"):
        names = (*PERCENTILES, "mean")
        table.add_row(f"{phase}, s", *(_short(values.get(f"{phase}.{name}")) for name in names))
    return table


def sweep_table(experiment: Experiment, found: "Sequence[tuple[Point, Record]]") -> Table:
    """Return every point of a sweep with what came of it."""
    shown = ("decode.throughput", "prompt.p50", "prompt.p95", "decode.p50", "decode.p95")
    columns = ("tokens/s", "prompt p50, s", "p95", "decode p50, s", "p95")
    table = Table(*experiment.sweep, *columns)
    for point, record in found:
        values = {metric.name: metric.value for metric in record.metrics}
        table.add_row(*map(str, point.values.values()), *(_short(values.get(n)) for n in shown))
    return table


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def machine_table(done: Done) -> Table:
    """Return how busy each machine was and how full its KV cache, of the window simulated."""
    table = Table("service", "machine", "kind", "layers", "busy, %", "KV at most, %")
    for service in done.plan.services:
        outcome = done.outcomes[service.name]
        for i in sorted(range(len(service.machines)), key=lambda i: service.intervals[i]):
            first, end = service.intervals[i]
            if (first, end) == UNUSED:
                continue
            room = outcome.kv_entries[i]
            table.add_row(
                service.name,
                str(service.machines[i]),
                done.plan.machines[service.machines[i]],
                f"{first}-{end - 1}",
                f"{100 * outcome.utilisation[i]:.0f}",
                f"{100 * outcome.kv_peak[i] / room:.0f}" if room else "",
            )
    return table


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One named experiment with the claims it serves and what its last records cost."""

    name: str
    about: str
    suites: tuple[str, ...]
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
        rows.append(
            Listed(
                name=name,
                about=experiment.about,
                suites=tuple(
                    s for s, cases in SUITES.items() if name in {c.experiment for c in cases}
                ),
                claims=tuple(claim.id for claim in claims if claim.experiment == name),
                hardware="CPU",
                wall_s=sum(record.wall_s for record in mine) if mine else None,
                peak_rss=max(record.peak_rss for record in mine) if mine else None,
            )
        )
    return rows


def listed_table(rows: Iterable[Listed]) -> Table:
    """Return the listing as a table."""
    table = Table("experiment", "suites", "claims", "about", "wall s", "peak MB")
    for row in rows:
        table.add_row(
            row.name,
            " ".join(row.suites),
            str(len(row.claims)),
            row.about,
            "" if row.wall_s is None else f"{row.wall_s:.1f}",
            "" if row.peak_rss is None else f"{row.peak_rss / 1e6:.0f}",
        )
    return table
