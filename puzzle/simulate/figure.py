"""A picture of the pass lists in time: a panel per stage of PPO, a row per pipeline rank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from puzzle.simulate.timeline import Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {
    ("actor", "F"): "#3f90da",
    ("actor", "B"): "#1b5a92",
    ("actor", "U"): "#92dadd",
    ("critic", "F"): "#ffa90e",
    ("critic", "B"): "#b36f00",
    ("critic", "U"): "#b9ac70",
    ("reference", "F"): "#717581",
    ("reward", "F"): "#832db6",
}
_NAMES = {"F": "forward", "B": "backward", "U": "update"}
_WIDTH_IN, _ROW_IN, _EDGE_IN = 7.0, 0.16, 1.0


def draw(timelines: Mapping[str, Timeline]) -> Figure:
    """Draw every timeline's passes over time in seconds, a colour for each model and direction."""
    from matplotlib.figure import Figure

    rows = sum(timeline.schedule.stages for timeline in timelines.values())
    height = rows * _ROW_IN + len(timelines) * _EDGE_IN
    figure = Figure(figsize=(_WIDTH_IN, height), layout="constrained")
    panels = figure.subplots(len(timelines), squeeze=False)[:, 0]
    for axes, (name, timeline) in zip(panels, timelines.items(), strict=True):
        _panel(axes, timeline)
        axes.set(title=name, xlabel="time in the stage, s", ylabel="pipeline rank")
    shown = {
        text: handle
        for axes in panels
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(shown.values(), shown.keys(), ncols=3, loc="outside lower center")
    return figure


def _panel(axes: Axes, timeline: Timeline) -> None:
    """Draw one timeline's rows; what stays blank is a rank that waits."""
    for (model, kind), colour in _COLOURS.items():
        label = f"{model}, {_NAMES[kind]}"
        for rank in range(timeline.schedule.stages):
            spans = [
                (start, end - start)
                for item, start, end in timeline.of(rank)
                if (item.model, item.kind) == (model, kind)
            ]
            if spans:
                place = (rank - 0.42, 0.84)
                axes.broken_barh(
                    spans, place, facecolors=colour, edgecolors="white", linewidth=0.2, label=label
                )
                label = "_nolegend_"
    stages = timeline.schedule.stages
    axes.set(xlim=(0, timeline.seconds or 1), ylim=(stages - 0.5, -0.5), yticks=range(stages))
