"""From records to Beta's section of the report: tables, figures, words."""

from collections.abc import Sequence

from beta.paper import beyond, figures, motivation, tables
from beta.paper.suites import MOTIVATION
from common.artifact import Folder
from common.page import Section, Table
from common.record import Record

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


def section(folder: Folder, records: Sequence[Record]) -> Section:
    """Return the section of these records."""
    shown = (
        tables.agreement(records),
        tables.meeting(records),
        tables.fidelity(records),
        beyond.served(records),
        beyond.beyond(records),
        beyond.drift(records),
        *tables.figures(records),
        motivation.overheads(records),
        *((motivation.costs(),) if any(r.experiment in MOTIVATION for r in records) else ()),
        beyond.speed(records),
    )
    return Section(
        artifact=folder.artifact,
        title="Beta: AlpaServe, model placement with model parallelism",
        intro=INTRO,
        number=_number(shown[0]),
        tables=shown,
        figures=(*figures.attainments(folder, records), *motivation.drawings(folder, records)),
        notes=NOTES,
    )


def _number(agreement: Table) -> str:
    compared, equal = (sum(int(row[i] or 0) for row in agreement.rows) for i in (3, 4))
    return (
        (
            f"{equal:,} of {compared:,} simulated points equal their reference to the last printed"
            " digit; the others stand on a stand-in for a trace that is not published."
            if compared > equal
            else f"All {compared:,} simulated points equal their reference to the last digit."
        )
        if compared
        else ""
    )
