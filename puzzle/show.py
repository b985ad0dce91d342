"""Plans, experiments and logs as tables for the terminal."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from rich.console import Group
from rich.table import Table

from common.record import Metric, latest
from puzzle.cases import GIB, OWN, Folder
from puzzle.claiming import load_claims
from puzzle.experiments import SUITES, named
from puzzle.inputs.anomalies import anomalies
from puzzle.inputs.experiment import Experiment
from puzzle.inputs.logs import read_folder
from puzzle.plan.plans import Plan
from puzzle.planner import Candidate
from puzzle.simulate.timeline import training_timeline


def candidates_table(experiment: Experiment, candidates: Iterable[Candidate]) -> Table:
    """Return the planner's best plans, the shortest step first."""
    table = Table(
        title=f"{experiment.name}: best plans, predicted (seconds)",
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
        caption="batches: of training/prefill/decode; train.: merged in closed form (published for"
        " it alone), fused by its timeline; played: the pass list in time, of either",
        caption_justify="left",
    )
    for column in ("train", "generate", "order", "batches"):
        table.add_column(column, no_wrap=True)
    for column in ("gen.", "switch", "infer.", "train.", "played", "step", "GiB"):
        table.add_column(column, justify="right", no_wrap=True)
    found = list(candidates)
    digits = 2 if found[0].predicted.times.step >= 1 else 4
    for plan, predicted in found:
        times, work = predicted.times, plan.work
        played = training_timeline(plan, experiment.machines.constants).seconds
        table.add_row(
            str(plan.choice.training),
            str(plan.choice.generation),
            plan.choice.schedule,
            f"{work.micro_batch}/{work.prefill_micro_batch}/{work.decode_micro_batch}",
            *(f"{t:.{digits}f}" for t in (*times, played, times.step)),
            f"{predicted.memory.peak / GIB:.{digits - 1}f}",
        )
    return table


def switch_table(plan: Plan) -> Table:
    """Return what every rank keeps, receives and sends, the first ranks only where many."""
    assert plan.switch is not None
    choice = plan.choice
    table = Table(
        title=f"switch {choice.training} to {choice.generation}, mapping {choice.mapping} (MB)",
        title_justify="left",
    )
    for column in ("rank", "used in place", "copied", "received", "sent", "messages"):
        table.add_column(column, justify="right")
    s = plan.switch
    for rank in range(min(plan.world, 16)):
        sizes = (s.kept[rank], s.copied[rank], s.received[rank], s.sent[rank])
        table.add_row(str(rank), *(f"{size / 1e6:.4g}" for size in sizes), str(s.messages[rank]))
    return table


def times_table(metrics: Sequence[Metric]) -> Table:
    """Return times and sizes of a case."""
    table = Table("", "value", "unit", box=None)
    for metric in metrics:
        table.add_row(metric.name, f"{metric.value:.6g}", metric.unit)
    return table


def logs_table(folder: Path) -> Group:
    """Return a folder's runs and a line per anomaly."""
    logs, empty = read_folder(folder)
    table = Table(title=f"{folder}: means in s, first steps left out", title_justify="left")
    for column in ("log", "P-D-T", "steps", "stage 1", "stage 2", "stage 3", "step", "switch"):
        table.add_column(column, justify="left" if column == "log" else "right", overflow="fold")
    for log in logs:
        where = "-".join(str(log.world[i]) for i in (3, 1, 2)) if log.world else ""
        switch = log.switch()
        table.add_row(
            str(Path(log.path).relative_to(folder)),
            where,
            str(len(log.steps)),
            *(f"{seconds:.4f}" for seconds in log.means()),
            "" if switch is None else f"{switch:.4f}",
        )
    found = anomalies(logs, empty)
    return Group(table, *(f"does not fit: {line}" for line in found), f"{len(found)} anomalies")


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
        cpu = experiment.cluster == "cpu"
        rows.append(
            Listed(
                name=name,
                about=experiment.about,
                suites=tuple(suites),
                claims=tuple(claim.id for claim in claims if claim.experiment == name),
                hardware="CPU" if cpu else f"CPU to plan, {experiment.world} GPUs to run",
                wall_s=sum(record.wall_s for record in mine) if mine else None,
                peak_rss=max(record.peak_rss for record in mine) if mine else None,
            )
        )
    return rows


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
