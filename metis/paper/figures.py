"""The figures of Metis' report section."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.artifact import Folder
from common.figure import method_style, save, style
from common.page import Figure
from common.record import Record, metric
from metis.paper.experiments import PublishedCell
from metis.paper.tables import searched

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_IN, HEIGHT_IN = 7.0, 2.6


def steps(folder: Folder, records: Sequence[Record]) -> Figure | None:
    """Draw search steps per row of Table 1."""
    return _bars(
        folder,
        records,
        "steps",
        "search.steps",
        "search steps",
        lambda cell: float(cell.count),
        "Search steps of both policies (bars) and as published (hollow markers)",
    )


def times(folder: Folder, records: Sequence[Record]) -> Figure | None:
    """Draw search times per row of Table 1."""
    return _bars(
        folder,
        records,
        "times",
        "search.time",
        "search time, s",
        lambda cell: cell.wall_ms / 1000,
        "Search time of both policies (bars) and as published on an Apple M1 (hollow markers)",
    )


def _bars(
    folder: Folder,
    records: Sequence[Record],
    name: str,
    key: str,
    label: str,
    published: Callable[[PublishedCell], float],
    title: str,
) -> Figure | None:
    rows = list(searched(records))
    if not rows:
        return None
    from matplotlib.figure import Figure as Drawing

    with style():
        drawing = Drawing(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
        axes = drawing.subplots()
        for number, policy in enumerate(("metis", "stratified")):
            places = [place + (number - 0.5) * 0.36 for place in range(len(rows))]
            ours = [metric((metis, strat)[number], key) or 0.0 for _, metis, strat in rows]
            paper = [published(getattr(row, policy)) for row, _, _ in rows]
            look = method_style(number)
            axes.bar(
                places,
                ours,
                0.34,
                label=f"{policy}, ours",
                color=look["color"],
                hatch=look["hatch"],
            )
            axes.plot(places, paper, "o", mfc="white", mec="black", ms=5, zorder=3, clip_on=False)
        axes.plot([], [], "o", mfc="white", mec="black", ms=5, label="published")
        _finish(axes, [f"row {row[0].row}" for row in rows], label)
        save(drawing, folder.at("figures", name))
    values = "; ".join(
        f"row {row.row}: {metric(a, key):,.4g} and {metric(b, key):,.4g}" for row, a, b in rows
    )
    return Figure(
        title=title,
        svg=_relative(folder, name),
        alt=f"{label} of the metis and stratified policies: {values}",
    )


def _finish(axes: Axes, labels: list[str], label: str) -> None:
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yscale("log")
    axes.set_ylim(bottom=10 ** math.floor(math.log10(axes.dataLim.minposy)))
    axes.set_ylabel(label)
    axes.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def pipelines(folder: Folder, records: Sequence[Record]) -> list[Figure]:
    """Return the pipeline pictures that simulations have drawn."""
    drawn = []
    for record in records:
        if record.case["verb"] != "simulate" or record.status != "ok":
            continue
        name = f"{record.experiment}.{record.case['method']}.pipeline"
        if not folder.at("figures", name).with_name(f"{name}.svg").is_file():
            continue
        time = metric(record, "iteration.time")
        drawn.append(
            Figure(
                title=f"Pipeline of {record.experiment} ({record.case['method']}), simulated",
                svg=_relative(folder, name),
                alt=f"1F1B timeline of the plan, {time:.1f} ms per iteration",
            )
        )
    return drawn


def _relative(folder: Folder, name: str) -> str:
    return str(Path(f"{folder.at('figures', name)}.svg").relative_to(folder.out))
