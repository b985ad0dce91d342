"""Plans and experiments as tables for the terminal."""

from collections.abc import Iterable, Sequence

import msgspec
from rich.table import Table

from common.record import latest
from vocab_parallel.cases import OWN, Folder
from vocab_parallel.choose import Choice
from vocab_parallel.claiming import load_claims
from vocab_parallel.experiments import SUITES, named
from vocab_parallel.inputs.experiment import Experiment
from vocab_parallel.plan.plans import Plan
from vocab_parallel.simulate.memory import GIB
from vocab_parallel.simulate.predict import Prediction

_SHOWN = 24


def choices_table(experiment: Experiment, choices: Iterable[Choice]) -> Table:
    """Return all methods for an experiment, fastest first."""
    capacity = experiment.device.memory_gib
    table = Table(
        title=f"{experiment.name}: methods, predicted (a rank has {capacity:g} GiB)",
        title_justify="left",
    )
    for column in ("method", "iteration s", "MFU %", "fullest GiB", "emptiest GiB", "fits"):
        table.add_column(column, justify="left" if column in ("method", "fits") else "right")
    for choice in choices:
        prediction = choice.prediction
        if prediction is None:
            table.add_row(choice.method, "", "", "", "", "no plan")
            continue
        table.add_row(
            choice.method,
            f"{prediction.iteration_s:.3f}",
            f"{100 * prediction.mfu:.2f}",
            f"{max(prediction.reserved) / GIB:.2f}",
            f"{min(prediction.reserved) / GIB:.2f}",
            "yes" if choice.fits() else "no",
        )
    return table


def without_plan(choices: Iterable[Choice]) -> str:
    """Return why methods have no plan, one line per reason; empty where all have one."""
    methods: dict[str, list[str]] = {}
    for choice in choices:
        if choice.plan is None:
            methods.setdefault(choice.why_not, []).append(choice.method)
    return "".join(f"no plan by {', '.join(names)}: {why}\n" for why, names in methods.items())


def ranks_table(plan: Plan, prediction: Prediction) -> Table:
    """Return what every rank will see."""
    table = Table(
        title=f"{plan.experiment}: {plan.method}, {plan.schedule.batches} micro-batches,"
        f" {prediction.iteration_s:.3f} s, MFU {100 * prediction.mfu:.2f} %",
        title_justify="left",
    )
    columns = ("rank", "layers", "busy %", "live micro-batches", "allocated GiB", "reserved GiB")
    for column in columns:
        table.add_column(column, justify="right")
    schedule = plan.schedule
    for rank in range(schedule.ranks):
        layers = [plan.layers[schedule.stage(rank, chunk)] for chunk in range(schedule.chunks)]
        table.add_row(
            str(rank),
            " + ".join(map(str, layers)),
            f"{100 * prediction.busy[rank]:.1f}",
            str(prediction.live[rank]) + (" halves" if schedule.chunks == 2 else ""),
            f"{prediction.allocated[rank] / GIB:.2f}",
            f"{prediction.reserved[rank] / GIB:.2f}",
        )
    return table


def schedule_text(plan: Plan) -> str:
    """Return the first passes of every rank, as the papers write them."""
    lines = [
        f"rank {rank:2d}: {' '.join(plan.schedule.label(item) for item in program[:_SHOWN])}"
        + (" ..." if len(program) > _SHOWN else "")
        for rank, program in enumerate(plan.schedule.programs)
    ]
    return "\n".join(lines)


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
        suites = [s for s, cases in SUITES.items() if name in {c.experiment for c in cases}]
        rows.append(
            Listed(
                name=name,
                about=experiment.about,
                suites=tuple(suites),
                claims=tuple(claim.id for claim in claims if claim.experiment == name),
                hardware=_hardware(experiment),
                wall_s=sum(record.wall_s for record in mine) if mine else None,
                peak_rss=max(record.peak_rss for record in mine) if mine else None,
            )
        )
    return rows


def _hardware(experiment: Experiment) -> str:
    ranks = experiment.pipeline.ranks
    if "cpu" in experiment.name:
        return "CPU"
    return f"CPU to plan and simulate, {ranks} GPUs to run"


def listed_table(rows: Sequence[Listed]) -> Table:
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
