"""From records to Beta's section of the report: tables, figures, claims."""

from collections.abc import Sequence

from rich.console import Console

from beta import figures, motivation, tables
from beta.cases import ARTIFACT, OWN, Folder
from beta.claiming import comparisons, load_claims
from beta.sweeps import MOTIVATION, SUITES
from common.claims import Verdict, all_hold, check
from common.claims import table as claims_table
from common.errors import InputError
from common.page import Section, render, write_section
from common.record import Record, latest

INTRO = (
    "AlpaServe places many models on few devices. A model split over several devices answers no"
    " faster, but lets a burst for one model use the devices of the others; the placement search"
    " finds where that pays. The figures are simulated from measured profiles, as in the paper;"
    " what was really served has a table of its own."
)

NOTES = (
    "stand-in: the Azure traces are not shipped (give them by traffic.path); the 2019 one is"
    " replaced by a made-up trace calibrated against published points of S1@MAF1, the 2021 one by"
    " one that is good for the shape only, and the profile of the 103.5-billion model by a rule"
    " (beta/inputs/model.py).",
    "Figures are made in compat mode: with the original's ties and its other peculiarities"
    " (beta/plan/switches.py), which the published points depend on.",
)


def write_report(folder: Folder, suite: str | None, only: Sequence[str] = ()) -> bool:
    """Print the claims, write section, figures and page; say whether every claim holds.

    `only`: the experiments whose claims count, where not a whole suite was done.
    """
    suites = [suite] if suite else [*SUITES, OWN]
    records = {name: latest(folder.records(name).read()) for name in suites}
    records = {name: found for name, found in records.items() if found}
    if not records:
        raise InputError(
            f"{folder.home}: no records of {suite or 'any suite'}; run 'beta quick' first"
        )
    claims = [claim for claim in load_claims() if not only or claim.experiment in only]
    verdicts = [
        verdict
        for name, found in records.items()
        if name in SUITES
        for verdict in check(claims, [*found, *comparisons(found)], name)
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
    chosen: dict[tuple[str, str], Record] = {}
    for name in (OWN, "quick", "full"):
        for record in records.get(name, []):
            chosen[record.experiment, record.case_id] = record
    return list(chosen.values())


def _section(folder: Folder, records: Sequence[Record], verdicts: Sequence[Verdict]) -> Section:
    shown = (
        tables.agreement(records),
        tables.meeting(records),
        tables.fidelity(records),
        tables.served(records),
        tables.beyond(records),
        tables.drift(records),
        *tables.figures(records),
        motivation.overheads(records),
        *((motivation.costs(),) if any(r.experiment in MOTIVATION for r in records) else ()),
        tables.speed(records),
    )
    return Section(
        artifact=ARTIFACT,
        title="Beta: AlpaServe, model placement with model parallelism",
        intro=INTRO,
        tables=tuple(table for table in shown if table.rows),
        figures=(*figures.attainments(folder, records), *motivation.drawings(folder, records)),
        verdicts=tuple(verdicts),
        provenance=tuple(sorted({record.provenance for record in records})),
        notes=NOTES,
    )
