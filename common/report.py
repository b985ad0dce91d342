"""From an artifact's records to its section of the page: selected, held against claims, written."""

import importlib
import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from common.artifact import OWN, Artifact, Folder
from common.claims import Claim, Verdict, check, load, table
from common.errors import InputError
from common.own import own
from common.page import Section, Table, render, write_section
from common.record import Record, latest


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a report says; it holds where every claim passes and no case of a suite failed."""

    page: str
    holds: bool
    verdicts: tuple[Verdict, ...]
    failed: tuple[Record, ...]


def claims_of(artifact: Artifact) -> tuple[Claim, ...]:
    """Return the claims of an artifact's paper; none where it has no paper."""
    path = Path(str(importlib.import_module(artifact.name).__file__)).parent / "paper/claims.toml"
    return load(path) if path.is_file() else ()


def write_report(
    artifact: Artifact, folder: Folder, suite: str | None, only: Sequence[str] = ()
) -> Told:
    """Write section, figures and page; `only`: the experiments whose claims count, empty for all.

    Raises InputError where there are no records of the suite.
    """
    suites = [*artifact.hook("suites", dict)()]
    records = {s: latest(folder.records(s).read()) for s in ([suite] if suite else [*suites, OWN])}
    records = {name: found for name, found in records.items() if found}
    if not records:
        raise InputError(
            f"{folder.at()}: no records of {suite or 'any suite'}; run '{artifact.name} quick'"
            " first"
        )
    claims = [c for c in claims_of(artifact) if not only or c.experiment in only]
    derived = artifact.hook("derived", list)
    verdicts = [
        verdict
        for name, found in records.items()
        if name in suites
        for verdict in check(claims, [*found, *derived(found)], name)
    ]
    shown, asked = _richest(artifact, suites, records), records.get(OWN, [])
    _warn_of_machines(artifact, [*asked, *shown])
    failed = [r for r in (*asked, *shown) if r.status == "failed"]
    make = artifact.hook("section")
    section = make(folder, shown) if make else Section(artifact="", title=artifact.sentence)
    section = msgspec.structs.replace(
        section,
        artifact=artifact.name,
        own=own(artifact, folder, asked),
        tables=(*_failed_table(artifact, failed), *(t for t in section.tables if t.rows)),
        verdicts=tuple(verdicts),
        provenance=tuple(sorted({r.provenance for r in (*asked, *shown)})),
    )
    write_section(folder.out, section)
    page, missed = str(render(folder.out)), [v for v in verdicts if v.verdict != "pass"]
    holds = not missed and not any(r.suite in suites for r in failed)
    return Told(page=page, holds=holds, verdicts=tuple(verdicts), failed=tuple(failed))


def print_report(artifact: Artifact, told: Told) -> None:
    """Print the claims, what failed and how to repeat just that, and where the page is."""
    if told.verdicts:
        Console().print(table(told.verdicts))
    for r in told.failed:
        what = f"failed: {r.case['verb']} {r.experiment} ({r.case['method']}): {r.error}"
        print(what + (f"; repeat: {repeat(artifact, r)}" if r.suite != OWN else ""))
    held = sum(verdict.verdict == "pass" for verdict in told.verdicts)
    print(f"{held} of {len(told.verdicts)} claims hold; report: {told.page}")


def repeat(artifact: Artifact, record: Record) -> str:
    """Return the command that does a failed case of a suite again."""
    return f"python -m {artifact.name} {record.suite} --again --only {record.experiment}"


def _failed_table(artifact: Artifact, failed: Sequence[Record]) -> list[Table]:
    rows = [
        (r.experiment, str(r.case["verb"]), str(r.case["method"]), f"failed: {r.error}")
        for r in failed
    ]
    again = sorted({repeat(artifact, r) for r in failed if r.suite != OWN})
    columns = ("experiment", "verb", "method", "what went wrong")
    note = f"Repeat by: {'; '.join(again)}" if again else ""
    return [Table(title="Failed", columns=columns, rows=tuple(rows), note=note)] if rows else []


def _richest(
    artifact: Artifact, suites: Sequence[str], records: dict[str, list[Record]]
) -> list[Record]:
    """Return one record per case: the full suite's where there is one, else the quick one's.

    A failed one does not hide one that is ok.
    """
    chosen = dict[tuple[str, ...], Record]()
    for record in (r for name in suites for r in records.get(name, [])):
        axes = [str(record.case.get(axis)) for axis in artifact.shown_by] or [record.case_id]
        key = (record.experiment, *axes)
        if record.status == "ok" or key not in chosen:
            chosen[key] = record
    return list(chosen.values())


def _warn_of_machines(artifact: Artifact, records: Sequence[Record]) -> None:
    machines = sorted({r.provenance.partition("-")[0] for r in records if r.provenance})
    if len(machines) > 1:
        logging.getLogger(artifact.name).warning(
            "records of %d machines stand together (%s): their times are not comparable; take a"
            " folder of its own (--out) for each machine",
            len(machines),
            ", ".join(machines),
        )
