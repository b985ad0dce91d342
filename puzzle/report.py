"""From records to this package's section of the report: tables, figures, claims."""

from collections.abc import Sequence

from rich.console import Console

from common.claims import Verdict, all_hold, check
from common.claims import table as claims_table
from common.errors import InputError
from common.page import Section, render, write_section
from common.record import Record, latest
from puzzle import figures, tables
from puzzle.cases import ARTIFACT, OWN, Folder
from puzzle.claiming import load_claims
from puzzle.experiments import SUITES
from puzzle.measured_figures import measured_figures, measured_table

INTRO = (
    "A PPO step generates with the actor, scores with three frozen or old models, and trains actor"
    " and critic. Puzzle moves the actor's weights into a layout that generates faster and back, by"
    " messages inside small groups of ranks, and merges both training pipelines into one. Published"
    " values are those of the artifact's logs; predicted ones come from a cost model calibrated on"
    " them; measured ones from this package's own ranks on this machine."
)

NOTES = (
    "The artifact's released code never updates the critic in the merged schedule, has SwiGLU and"
    " RoPE wrong, and each stage shuffles by its own random numbers: its times are valid, what it"
    " learns is not. Everything that is measured here has these mended.",
    "The paper's headline, up to 2.12x over DeepSpeed-Chat, is in no log: the logs give 1.29x to"
    " 2.07x, and 2.66x for 33B/7B with the run that really has the switch.",
)


def write_report(folder: Folder, suite: str | None) -> bool:
    """Print the claims, write section, figures and page; say whether every claim holds."""
    suites = [suite] if suite else [*SUITES, OWN]
    records = {name: latest(folder.records(name).read()) for name in suites}
    records = {name: found for name, found in records.items() if found}
    if not records:
        raise InputError(
            f"{folder.home}: no records of {suite or 'any suite'}; run 'puzzle quick' first"
        )
    claims = load_claims()
    verdicts = [
        verdict
        for name, found in records.items()
        if name in SUITES
        for verdict in check(claims, found, name)
    ]
    write_section(folder.out, _section(folder, _richest(records), verdicts))
    page = render(folder.out)
    if verdicts:
        Console().print(claims_table(verdicts))
    held = sum(verdict.verdict == "pass" for verdict in verdicts)
    print(f"{held} of {len(verdicts)} claims hold; report: {page}")
    return all_hold(verdicts)


def _richest(records: dict[str, list[Record]]) -> list[Record]:
    """Return one record per case: the full suite's where there is one, then quick, then own."""
    chosen: dict[tuple[str, ...], Record] = {}
    for name in (OWN, "quick", "full"):
        for record in records.get(name, []):
            key = (record.experiment, str(record.case["verb"]), str(record.case["method"]))
            chosen[key] = record
    return list(chosen.values())


def _section(folder: Folder, records: Sequence[Record], verdicts: Sequence[Verdict]) -> Section:
    shown = (
        tables.figure_8_table(records),
        tables.figure_9_table(records),
        tables.figure_10_table(records),
        tables.figure_11_table(records),
        tables.figure_12_table(records),
        tables.table_3_table(records),
        measured_table(records),
        tables.errors_table(records),
        tables.plans_table(records),
        tables.runs_table(records),
        tables.moved_table(records),
    )
    drawn = (
        figures.figure_eight(folder, records),
        figures.figure_nine(folder, records),
        figures.figure_ten(folder, records),
        figures.figure_eleven(folder, records),
        figures.figure_twelve(folder, records),
        *measured_figures(folder, records),
        figures.curves(folder, records),
    )
    return Section(
        artifact=ARTIFACT,
        title="Puzzle: PPO alignment with light-weight context switches",
        intro=INTRO,
        tables=tuple(table for table in shown if table.rows),
        figures=tuple(filter(None, drawn)),
        verdicts=tuple(verdicts),
        provenance=tuple(sorted({record.provenance for record in records})),
        notes=NOTES,
    )
