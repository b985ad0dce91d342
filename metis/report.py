"""From records to Metis' section of the report: tables, figures, claims."""

import logging
from collections.abc import Sequence

import msgspec
from rich.console import Console

from common.case import case_id
from common.claims import Verdict, all_hold, check
from common.claims import table as claims_table
from common.errors import InputError
from common.page import Figure, Section, render, write_section
from common.record import Record, latest
from metis import figures, tables
from metis.cases import ARTIFACT, OWN, Folder, config_of
from metis.claiming import load_claims, reductions
from metis.experiments import SUITES, named

log = logging.getLogger("metis")

INTRO = (
    "Metis searches the parallel training plan (data, tensor and pipeline degrees, layer split)"
    " that a cost model predicts to be fastest on a cluster of unlike GPUs. compat repeats the"
    " original's search with its defects; strict is the search with them mended. Nothing here was"
    " trained on GPUs unless a row says measured."
)

NOTES = (
    "The cheapest compat plans exploit the cost model, not the hardware: the synthetic profile"
    " halves the time with every doubling of the tensor degree, tensor groups cross nodes for"
    " free, and a group of unlike devices runs at the speed of its first one. strict forbids or"
    " charges each of these, so its costs are higher and cannot be compared with compat's.",
    "Published times are from a 2021 Apple M1, ours from the machine named under provenance.",
)


def write_report(folder: Folder, suite: str | None) -> bool:
    """Print the claims, write section, figures and page; say whether every claim holds."""
    suites = [suite] if suite else [*SUITES, OWN]
    records = {name: latest(folder.records(name).read()) for name in suites}
    records = {name: found for name, found in records.items() if found}
    if not records:
        raise InputError(
            f"{folder.home}: no records of {suite or 'any suite'}; run 'metis quick' first"
        )
    claims = load_claims()
    verdicts = [
        verdict
        for name, found in records.items()
        if name in SUITES
        for verdict in check(claims, [*found, *reductions(found)], name)
    ]
    shown = _richest(records)
    machines = sorted({record.provenance.partition("-")[0] for record in shown})
    if len(machines) > 1:
        log.warning(
            "records of %d machines stand together (%s): their times are not comparable; take a"
            " folder of its own (--out) for each machine",
            len(machines),
            ", ".join(machines),
        )
    write_section(folder.out, _section(folder, shown, verdicts))
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
        for record in map(_by_its_own_name, records.get(name, [])):
            key = (record.experiment, str(record.case["verb"]), str(record.case["method"]))
            chosen[key] = record
    return list(chosen.values())


def _by_its_own_name(record: Record) -> Record:
    """Return a record of a named experiment that --set has changed under a name that says so."""
    original = named().get(record.experiment)
    if original is None or record.suite != OWN:
        return record
    verb, method = str(record.case["verb"]), str(record.case["method"])
    if record.case_id == case_id(config_of(verb, original, method, record.seed)):
        return record
    return msgspec.structs.replace(record, experiment=f"{record.experiment}, changed")


def _section(folder: Folder, records: Sequence[Record], verdicts: Sequence[Verdict]) -> Section:
    drawn: list[Figure] = []
    for make in (figures.steps, figures.times):
        figure = make(folder, records)
        if figure is not None:
            drawn.append(figure)
    drawn += figures.pipelines(folder, records)
    shown = (
        tables.steps(records),
        tables.times(records),
        tables.printed_costs(records),
        tables.strict_plans(records),
        tables.timelines(records),
        tables.measured_stages(records),
    )
    return Section(
        artifact=ARTIFACT,
        title="Metis: planning training on unlike GPUs",
        intro=INTRO,
        tables=tuple(table for table in shown if table.rows),
        figures=tuple(drawn),
        verdicts=tuple(verdicts),
        provenance=tuple(sorted({record.provenance for record in records})),
        notes=NOTES,
    )
