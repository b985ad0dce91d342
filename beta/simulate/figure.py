"""What became of a workload's requests as a drawing: over time, by latency, and by model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from beta.inputs.arrays import Floats
from beta.inputs.workload import Workload
from beta.simulate.fast import Outcome
from common.figure import method_style, style

WIDTH_IN, HEIGHT_IN = 7.0, 2.4
BINS = 60
MOST_NAMED = 12
"""Models whose names fit below their bars."""


def draw(workload: Workload, outcome: Outcome, names: Sequence[str]) -> Any:
    """Return a matplotlib Figure with three panels; `names` are the models'."""
    from matplotlib.figure import Figure

    with style():
        drawing = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
        over_time, by_latency, by_model = drawing.subplots(1, 3)
        _draw_time(over_time, workload, outcome)
        _draw_latency(by_latency, latencies(workload, outcome))
        _draw_models(by_model, shares(workload, outcome, len(names)), names)
    return drawing


def latencies(workload: Workload, outcome: Outcome) -> Floats:
    """Return the seconds that each request in time took, ascending."""
    return np.sort((outcome.finish - workload.arrival)[outcome.good])


def shares(workload: Workload, outcome: Outcome, models: int) -> Floats:
    """Return each model's share of requests in time; nan of one that was not asked for."""
    asked = workload.counts(models)
    good = np.bincount(workload.model[outcome.good], minlength=models)
    known = np.maximum(asked, 1)
    return np.where(asked > 0, good / known, np.nan)


def _draw_time(panel: Any, workload: Workload, outcome: Outcome) -> None:
    edges = np.linspace(0.0, float(workload.arrival[-1]) + 1e-9, BINS + 1)
    width = edges[1] - edges[0]
    asked, _ = np.histogram(workload.arrival, edges)
    good, _ = np.histogram(workload.arrival[outcome.good], edges)
    panel.stairs(asked / width, edges, color=method_style(1)["color"], label="asked")
    panel.stairs(good / width, edges, color=method_style(0)["color"], fill=True, label="in time")
    panel.set_xlabel("time, s")
    panel.set_ylabel("requests/s")
    panel.legend(frameon=False)


def _draw_latency(panel: Any, seconds: Floats) -> None:
    if len(seconds):
        share = 100 * np.arange(1, len(seconds) + 1) / len(seconds)
        panel.plot(seconds, share, color=method_style(0)["color"])
    panel.set_xlabel("latency of those in time, s")
    panel.set_ylabel("at most, %")


def _draw_models(panel: Any, share: Floats, names: Sequence[str]) -> None:
    panel.bar(range(len(names)), 100 * np.nan_to_num(share), color=method_style(0)["color"])
    panel.set_ylim(0, 100)
    panel.set_ylabel("in time, %")
    if len(names) <= MOST_NAMED:
        panel.set_xticks(range(len(names)), names, rotation=90)
    else:
        panel.set_xlabel("model by number")
