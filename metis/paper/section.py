"""From records to Metis' section of the report: tables, figures, words."""

from collections.abc import Sequence

from common.artifact import Folder
from common.claims import number
from common.page import Figure, Section, Table
from common.record import Record
from metis.paper import figures, tables

INTRO = (
    "Metis searches the parallel training plan (data, tensor and pipeline degrees, layer split)"
    " that a cost model predicts to be fastest on a cluster of heterogeneous GPUs. compat repeats"
    " the original's search with its defects; strict is the search with them mended. Nothing here"
    " was trained on GPUs unless a row says measured."
)

NOTES = (
    "The cheapest compat plans exploit the cost model, not the hardware: the synthetic profile"
    " halves the time with every doubling of the tensor degree, tensor groups cross nodes for"
    " free, and a group of unlike devices runs at the speed of its first one. strict forbids or"
    " charges each of these, so its costs are higher and cannot be compared with compat's.",
    "Published times are from a 2021 Apple M1, ours from the machine named under provenance.",
)


def section(folder: Folder, records: Sequence[Record]) -> Section:
    """Return the section of these records."""
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
        artifact=folder.artifact,
        title="Metis: planning training on heterogeneous GPUs",
        intro=INTRO,
        number=_number(tables.times(records)),
        tables=shown,
        figures=tuple(drawn),
        notes=NOTES,
    )


def _number(times: Table) -> str:
    if not times.rows:
        return ""
    row, published, ours, faster, *_ = times.rows[-1]
    return (
        f"Table 1, row {row}: the original's search, step for step, in {number(ours)} s here;"
        f" published {number(published)} s (on another machine), {number(faster)} times as long."
    )
