"""A picture of the pipeline: one row per stage, one bar per pass, as in the 1F1B literature."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metis.simulate.timeline import Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {
    "forward": "#3f90da",
    "backward": "#ffa90e",
    "all-reduce": "#832db6",
    "update": "#717581",
}
_WIDTH_IN, _ROW_IN, _EDGE_IN = 7.0, 0.32, 0.9
_POINTS_PER_DIGIT = 4.5
"""Width that one digit of a micro-batch's number takes at the label's size."""


def draw(timeline: Timeline, title: str = "") -> Figure:
    """Draw the passes of every stage over time in ms, numbered where the bar is wide enough."""
    from matplotlib.figure import Figure

    stages = len(timeline.finishes)
    size = (_WIDTH_IN, stages * _ROW_IN + _EDGE_IN)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    for name, bars in _bars(timeline).items():
        for stage, spans in enumerate(bars):
            axes.broken_barh(
                spans,
                (stage - 0.42, 0.84),
                facecolors=_COLOURS[name],
                edgecolors="white",
                linewidth=0.3,
                label=name if stage == 0 else None,
            )
    _number(axes, timeline)
    axes.set(xlim=(0, timeline.iteration_ms or 1), ylim=(stages - 0.5, -0.5), title=title)
    axes.set(xlabel="time in the iteration, ms", ylabel="stage", yticks=range(stages))
    figure.legend(*axes.get_legend_handles_labels(), ncols=4, loc="outside lower center")
    return figure


def _bars(timeline: Timeline) -> dict[str, list[list[tuple[float, float]]]]:
    """Return (start, duration) pairs by kind and stage."""
    bars = {name: [[] for _ in timeline.finishes] for name in _COLOURS}
    for item in timeline.passes:
        name = "forward" if item.kind == "F" else "backward"
        bars[name][item.stage].append((item.start_ms, item.end_ms - item.start_ms))
    for end in timeline.finishes:
        bars["all-reduce"][end.stage].append((end.start_ms, end.reduced_ms - end.start_ms))
        bars["update"][end.stage].append((end.reduced_ms, end.updated_ms - end.reduced_ms))
    return bars


def _number(axes: Axes, timeline: Timeline) -> None:
    """Write each micro-batch's number into its bar unless it would stick out."""
    points_per_ms = _WIDTH_IN * 0.9 * 72 / (timeline.iteration_ms or 1)
    for item in timeline.passes:
        label, width = str(item.batch), (item.end_ms - item.start_ms) * points_per_ms
        if width > _POINTS_PER_DIGIT * (len(label) + 0.5):
            middle = (item.start_ms + item.end_ms) / 2
            axes.text(middle, item.stage, label, ha="center", va="center", fontsize=6)
