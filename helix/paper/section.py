"""From records to Helix's section of the report: tables, figures, words."""

from collections.abc import Sequence

from common.artifact import Folder
from common.claims import number
from common.page import Section, Table
from common.record import Record
from helix.paper import figures, tables
from helix.paper.replays import CLUSTERS

INTRO = (
    "Helix serves one large model over heterogeneous GPUs and networks: every machine holds a run"
    " of layers, and a maximum flow says how many tokens pass where. The artifact's placements are"
    " simulated with its own faults, to the printed digit; then placements of our own search are"
    " simulated under the same load. At the end a small model is really served, by Ray workers that"
    " play heterogeneous machines on this one. Nothing here ran on GPUs."
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


def section(folder: Folder, records: Sequence[Record]) -> Section:
    """Return the section of these records; those that failed are in no table or figure."""
    records = [record for record in records if record.status == "ok"]
    drawn = [figures.systems(folder, records, where) for where in CLUSTERS]
    drawn += [figures.deep_dives(folder, records), figures.quality(folder, records)]
    return Section(
        artifact=folder.artifact,
        title="Helix: serving a model over heterogeneous GPUs and networks",
        intro=INTRO,
        number=_number(tables.found(records)),
        tables=(
            tables.found(records),
            tables.throughput(records),
            tables.deep_dives(records),
            tables.latencies(records),
            tables.placements(records),
            tables.served(records),
            tables.flows(records),
            tables.faults(records),
        ),
        figures=tuple(figure for figure in drawn if figure is not None),
        notes=NOTES,
    )


def _number(found: Table) -> str:
    gains = [row for row in found.rows if isinstance(row[3], int | float)]
    if not gains:
        return ""
    what, theirs, ours, more, *_ = max(gains, key=lambda row: float(row[3] or 0))
    return (
        f"{what}: {number(ours)} tokens/s with a placement of our search, {number(more)} % more"
        f" than the {number(theirs)} of the paper's (both simulated here)."
    )
