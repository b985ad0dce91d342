"""From records to Helix's section of the report: tables, figures, claims."""

from collections.abc import Sequence

from rich.console import Console

from common.claims import Verdict, all_hold, check
from common.claims import table as claims_table
from common.errors import InputError
from common.page import Section, render, write_section
from common.record import Record, latest
from helix import figures, tables
from helix.cases import ARTIFACT, OWN, Folder
from helix.claiming import load_claims
from helix.experiments import SUITES
from helix.replays import CLUSTERS

INTRO = (
    "Helix serves one large model over unlike GPUs and networks: every machine holds a run of"
    " layers, and a maximum flow says how many tokens pass where. The artifact's placements are"
    " simulated with its own faults, to the printed digit; then placements of our own search are"
    " simulated under the same load. At the end a small model is really served, by Ray workers that"
    " play unlike machines on this one. Nothing here ran on GPUs."
)

NOTES = (
    "Faults of the original that its figures contain: a link's '1 gbps' is 1 GB/s; the A100s of"
    " the single cluster's separate 70B pipeline are given 14 times the KV capacity that the same"
    " pipeline has on the other clusters; a batch of one decode takes twice its time; arrival"
    " intervals are drawn one by one, so bursts are lost; the split among equal maximum flows"
    " follows a hash set.",
    "With the least-latency split in place of the original's, its own placement on the 42 machines"
    " serves more; the searched placements use that split.",
)


def write_report(folder: Folder, suite: str | None) -> bool:
    """Print the claims, write section, figures and page; say whether every claim holds."""
    suites = [suite] if suite else [*SUITES, OWN]
    records = {name: latest(folder.records(name).read()) for name in suites}
    records = {name: found for name, found in records.items() if found}
    if not records:
        raise InputError(
            f"{folder.home}: no records of {suite or 'any suite'}; run 'helix quick' first"
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
    chosen = dict[tuple[str, ...], Record]()
    for name in (OWN, "quick", "full"):
        for record in records.get(name, []):
            axes = (str(record.case[axis]) for axis in ("verb", "method", "objective"))
            chosen[record.experiment, *axes] = record
    return list(chosen.values())


def _section(folder: Folder, records: Sequence[Record], verdicts: Sequence[Verdict]) -> Section:
    drawn = [figures.systems(folder, records, where) for where in CLUSTERS]
    drawn += [figures.deep_dives(folder, records), figures.quality(folder, records)]
    shown = (
        tables.found(records),
        tables.throughput(records),
        tables.deep_dives(records),
        tables.latencies(records),
        tables.placements(records),
        tables.served(records),
        tables.flows(records),
        tables.faults(records),
    )
    return Section(
        artifact=ARTIFACT,
        title="Helix: serving a model over unlike GPUs and networks",
        intro=INTRO,
        tables=tuple(table for table in shown if table.rows),
        figures=tuple(figure for figure in drawn if figure is not None),
        verdicts=tuple(verdicts),
        provenance=tuple(sorted({record.provenance for record in records})),
        notes=NOTES,
    )
