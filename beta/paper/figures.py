"""The figures of Beta's report section: attainment over each swept setting, as in the paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from beta.paper.derived import MET, first_met, key_of, reference, swept
from beta.paper.published import Key
from beta.paper.suites import BEYOND, DRIFT, OVERHEAD, SERVED
from beta.paper.sweeps import grids
from beta.paper.tables import AXES, made_up
from common.artifact import Folder
from common.figure import method_style, save, style
from common.page import Figure
from common.record import Record, metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_IN, HEIGHT_IN = 7.0, 2.2
MARKERS = "os^Dv"
LABELS = {
    "sr-greedy": "SR",
    "sr-replace-60": "Clockwork++",
    "sr-replace-120": "Clockwork++",
    "sr-replace-21600": "Clockwork++",
    "mp-search": "AlpaServe",
    "mp-search-sep": "AlpaServe",
    "mp-round-robin": "Round robin",
    "mp-greedy-4": "Greedy placement",
}


def attainments(folder: Folder, records: Sequence[Record]) -> list[Figure]:
    """Draw every figure of which there are points; published points are hollow markers."""
    return [
        _figure(folder, name, mine)
        for name, mine in swept(records).items()
        if any(len(values) > 1 for values in grids()[name].sweeps.values())
        and name not in (*BEYOND, *DRIFT, *OVERHEAD, *SERVED)
    ]


def _figure(folder: Folder, name: str, records: Sequence[Record]) -> Figure:
    from matplotlib.figure import Figure as Drawing

    grid = grids()[name]
    scale = 100.0 if grid.metric == "attainment" else 1.0
    at = {key_of(record): scale * (metric(record, grid.metric) or 0.0) for record in records}
    unit = "in time, %" if grid.metric == "attainment" else "mean latency, s"
    sweeps = [sweep for sweep in grid.sweeps if any(key.sweep == sweep for key in at)]
    with style():
        drawing = Drawing(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
        panels = drawing.subplots(1, len(sweeps), sharey=True, squeeze=False)[0]
        for panel, sweep in zip(panels, sweeps, strict=True):
            for number, method in enumerate(grid.methods):
                _line(panel, number, Key(name, sweep, 0.0, method), at)
                met = first_met(records, sweep, method)
                if met is not None and grid.metric == "attainment":
                    panel.axvline(met, ls=":", lw=0.8, color=method_style(number)["color"])
            panel.set_xlabel(AXES[sweep])
        panels[0].set_ylabel(unit)
        handles, labels = panels[0].get_legend_handles_labels()
        drawing.legend(handles, labels, frameon=False, ncols=5, loc="outside upper center")
        svg, _ = save(drawing, folder.at("figures", name))
    compared = "the original's" if name == "large" else "published"
    return Figure(
        title=f"{grid.title}{made_up(records)}",
        svg=str(svg.relative_to(folder.out)),
        alt=f"{unit}: {_words(grid.methods, sweeps, name, at)}",
        note=f"Lines: ours. Hollow markers: {compared} points. Dotted: where {MET:.0%} is met."
        if any(key in reference(name) for key in at)
        else "Lines: ours; the published points are not available as numbers.",
    )


def _line(panel: Axes, number: int, point: Key, at: dict[Key, float]) -> None:
    look, known = method_style(number), reference(point.experiment)
    like = (point.experiment, point.sweep, point.method)
    mine = sorted(
        (key.x, value)
        for key, value in at.items()
        if (key.experiment, key.sweep, key.method) == like
    )
    theirs = sorted(
        (key.x, 100 * value)
        for key, value in known.items()
        if (key.experiment, key.sweep, key.method) == like and key in at
    )
    label = LABELS.get(point.method, point.method.removeprefix("mp-equal-"))
    marker = MARKERS[number]
    panel.plot(*_columns(mine), "-", color=look["color"], marker=marker, ms=2, label=label)
    panel.plot(*_columns(theirs), marker, mfc="none", mec=look["color"], ms=5, ls="")


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in pairs], [y for _, y in pairs]


def _words(methods: Sequence[str], sweeps: Sequence[str], name: str, at: dict[Key, float]) -> str:
    parts = list[str]()
    for sweep in sweeps:
        xs = sorted({key.x for key in at if key.sweep == sweep})
        for method in methods:
            ends = [at.get(Key(name, sweep, x, method)) for x in (xs[0], xs[-1])]
            if None not in ends:
                low, high = (end or 0.0 for end in ends)
                parts.append(
                    f"{method} {low:.3g} to {high:.3g} over {AXES[sweep]} {xs[0]:g} to {xs[-1]:g}"
                )
    return "; ".join(parts)
