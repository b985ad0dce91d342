"""Plans and experiments as tables for the terminal."""

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
from rich.table import Table

from common.record import Metric, latest
from metis.cases import OWN, Folder
from metis.claiming import load_claims
from metis.experiments import SUITES, named
from metis.inputs.experiment import MEASURE
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
    for number, stage in enumerate(plan.stages):
        table.add_row(*_cells(number, stage))
    return table


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


def terms_table(plan: Plan) -> Table:
    """Return closed form and timeline beside each other, term by term."""
    from metis.simulate.compare import compare

    table = Table("term", "closed form ms", "timeline ms", "meaning")
    for term in compare(plan):
        table.add_row(term.name, f"{term.closed_ms:.3f}", f"{term.played_ms:.3f}", term.meaning)
    return table


def stages_table(metrics: Sequence[Metric]) -> Table:
    """Return measured beside predicted stage times of a run's metrics."""
    values = {metric.name: metric.value for metric in metrics}
    table = Table("stage", "measured ms", "predicted ms", "measured / predicted")
    for stage in range(len(values)):
        if f"stage{stage}.execution" not in values:
            break
        measured, predicted = values[f"stage{stage}.execution"], values[f"stage{stage}.predicted"]
        ratio = f"{measured / predicted:.2f}" if predicted else "–"
        table.add_row(str(stage), f"{measured:.3f}", f"{predicted:.3f}", ratio)
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
    rows = []
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
                hardware="CPU (GPUs where there are some)"
                if experiment.profile.source == MEASURE
                else "CPU",
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
