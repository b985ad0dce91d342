"""The paper's figures measured here: the artifact's runs repeated on this machine's GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from common.artifact import Folder
from common.page import Figure, Table
from common.record import Record, find, metric
from puzzle.paper.figures import bars_figure
from puzzle.paper.publishing import (
    Bar,
    figure_8,
    figure_9,
    figure_10,
    figure_11,
    figure_12,
    table_3,
)
from puzzle.paper.repeats import Shown, shown_by
from puzzle.paper.tables import rounded

_OF_FIGURE = {
    "8": "step.time", "9": "training.time", "10": "training.time", "11": "step.time",
    "12": "step.time", "table 3": "switch.time",
}  # fmt: skip
"""What the bars of a figure are as high as."""
_PARTS = ("generation.time", "inference.time", "training.time", "switch.time")


_TWO, _FOUR = "tiny, 2 CPU ranks", "tiny, 4 CPU ranks"
_SMALL = (
    (Shown("8", _TWO, "DS-Chat"), "zero3-cpu-2", "step.time"),
    (Shown("8", _TWO, "PUZZLE-Base"), "tiny-cpu-2", "step.time"),
    (Shown("9", _FOUR, "sequential"), "tiny-cpu-4-in-turn", "training.time"),
    (Shown("9", _FOUR, "merged"), "tiny-cpu-4", "training.time"),
    (Shown("12", _FOUR, "PUZZLE"), "tiny-cpu-4", "step.time"),
    (Shown("table 3", _FOUR, "DS-Chat"), "tiny-cpu-4", "moved.deepspeed-chat.time"),
    (Shown("table 3", _FOUR, "PUZZLE"), "tiny-cpu-4", "moved.puzzle.time"),
)
"""Bars at the scale of this machine's CPU ranks, and which run has them."""


class Measured(NamedTuple):
    """One bar of the paper, measured here."""

    shown: Shown
    record: Record
    seconds: float
    gain: float
    """Over the first bar of its group."""
    published: float | None
    """The same gain as published (orion), faults of the logs mended."""


def measured(records: Sequence[Record]) -> list[Measured]:
    """Return all measured bars by figure, those of CPU ranks first."""
    repeated = {r.experiment: r for r in records if r.case["verb"] == "repeat"}
    places = shown_by(tuple(repeated))
    found: list[tuple[Shown, Record, float]] = []
    for shown, name, wanted in _SMALL:
        record = find(records, name, "run", "given")
        seconds = metric(record, wanted)
        if record is not None and seconds:
            found.append((shown, record, seconds))
    for name, record in repeated.items():
        for shown in places.get(name, ()):
            seconds = metric(record, _OF_FIGURE[shown.figure])
            if seconds:
                found.append((shown, record, seconds))
    found.sort(key=lambda item: list(_OF_FIGURE).index(item[0].figure))
    first: dict[tuple[str, str], tuple[str, float]] = {}
    made: list[Measured] = []
    for shown, record, seconds in found:
        bar, base = first.setdefault((shown.figure, shown.group), (shown.bar, seconds))
        made.append(Measured(shown, record, seconds, base / seconds, _published(shown, bar)))
    return made


def _published(shown: Shown, first: str) -> float | None:
    """Return the published gain of a bar over another of its group."""
    times = _published_times(shown.figure)
    mine, base = times.get((shown.group, shown.bar)), times.get((shown.group, first))
    return base / mine if mine and base else None


def _published_times(figure: str) -> dict[tuple[str, str], float]:
    bars: dict[str, list[Bar]] = {
        "8": figure_8(), "9": figure_9(), "11": figure_11(), "table 3": table_3()
    }  # fmt: skip
    if figure == "10":
        cells = {
            f"{c.actor}/{c.critic} {c.batch} p{p}t{t}d{d}".upper(): c
            for c in figure_10()
            for p, d, t in [c.layout]
        }
        return {
            key: value
            for group, c in cells.items()
            for key, value in (
                ((group, "sequential"), c.sequential_s),
                ((group, "merged"), c.merged_s),
            )
        }
    if figure == "12":
        sums: dict[tuple[str, str], float] = {}
        for row in figure_12():
            if row["cluster"] == "orion":
                key = ("7B/7B", row["system"].replace("DSChat", "DS-Chat"))
                sums[key] = sums.get(key, 0.0) + float(row["seconds_corrected"])
        return sums
    return {(b.pair, b.system): b.corrected for b in bars[figure] if b.cluster == "orion"}


def _parts(item: Measured) -> tuple[float | None, ...]:
    """Return a run's parts of a step; Table 3 is of the switch alone."""
    if item.shown.figure == "table 3":
        return (None,) * len(_PARTS)
    return tuple(rounded(metric(item.record, part)) for part in _PARTS)


def measured_table(records: Sequence[Record]) -> Table:
    """Return every bar measured here beside its published gain."""
    rows = tuple(
        (
            item.shown.figure, item.shown.group, item.shown.bar, item.record.experiment,
            *_parts(item),
            rounded(item.seconds, 4), rounded(item.gain), rounded(item.published),
        )
        for item in measured(records)
    )  # fmt: skip
    return Table(
        title="Figures 8 to 12 and Table 3 measured on this machine",
        columns=(
            "figure", "models", "bar", "run", "generation s", "inference s",
            "training s", "switch s", "the figure's s", "gain", "published gain, orion",
        ),
        rows=rows,
        note="gpusN: the artifact's runs on N GPUs, read from the logs they wrote by the parser"
        " that reads the original's, the first step left out; on fewer devices than the artifact"
        " had, layers and batch shrink with the pipeline, so gains compare and seconds do not. Tiny"
        " models on CPU ranks share cores and show overheads, not systems: no pipeline can gain.",
    )  # fmt: skip


def measured_figures(folder: Folder, records: Sequence[Record]) -> list[Figure]:
    """Draw figures 8 to 11 as measured on GPUs, with the published gains marked."""
    bars, made = measured(records), list[Figure]()
    for figure in ("8", "9", "10", "11"):
        mine = [
            bar
            for bar in bars
            if bar.shown.figure == figure and bar.record.case["verb"] == "repeat"
        ]
        if not mine:
            continue
        groups = list(dict.fromkeys(bar.shown.group for bar in mine))
        systems = list(dict.fromkeys(bar.shown.bar for bar in mine))
        of = {(bar.shown.group, bar.shown.bar): bar for bar in mine}
        gains = {s: [b.gain if (b := of.get((g, s))) else None for g in groups] for s in systems}
        said = {
            s: [b.published if (b := of.get((g, s))) else None for g in groups] for s in systems
        }
        made.append(
            bars_figure(
                folder,
                f"measured-{figure}",
                f"Figure {figure}, measured here",
                "gain",
                [group.replace(" ", "\n") for group in groups],
                gains,
                said,
                note="Bars: measured on this machine, models and batch scaled to its devices."
                " Markers: published (orion), faults of the logs mended.",
                marked="published",
            )
        )
    return made
