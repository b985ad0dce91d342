"""Pictures of a simulated schedule: a colour per kind of pass, and activation memory over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vocab_parallel.plan.passes import Kind
from vocab_parallel.plan.plans import Plan
from vocab_parallel.simulate.activations import activations_over_time
from vocab_parallel.simulate.memory import GIB
from vocab_parallel.simulate.predict import Prediction

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS: dict[Kind, str] = {
    "F": "#3f90da",
    "B": "#ffa90e",
    "W": "#94a4a2",
    "S": "#bd1f01",
    "T": "#832db6",
    "IF": "#92dadd",
    "IB": "#717581",
}
_WIDTH_IN, _ROW_IN, _EDGE_IN = 7.0, 0.28, 0.9
_SHOWN_PER_RANK = 2
"""Micro-batches per rank whose passes fill the picture: warm-up and the first steady intervals."""


def draw_schedule(plan: Plan, prediction: Prediction) -> Figure:
    """Draw the beginning of the schedule, one row per rank."""
    from matplotlib.figure import Figure

    ranks = plan.schedule.ranks
    until = _window(plan, prediction)
    size = (_WIDTH_IN, ranks * _ROW_IN + _EDGE_IN)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    for kind, colour in COLOURS.items():
        for rank in range(ranks):
            axes.broken_barh(
                _spans(plan, prediction, rank, kind, until),
                (rank - 0.42, 0.84),
                facecolors=colour,
                edgecolors="white",
                linewidth=0.2,
                label=kind if rank == 0 and _has(plan, kind) else None,
            )
    axes.set(xlim=(0, until * 1e3), ylim=(ranks - 0.5, -0.5), yticks=range(ranks))
    axes.set(xlabel="time in the iteration, ms", ylabel="rank")
    figure.legend(*axes.get_legend_handles_labels(), ncols=7, loc="outside lower center")
    return figure


def draw_memory(plan: Plan, prediction: Prediction) -> Figure:
    """Draw the live activations of every rank over the iteration, in GiB."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_IN, 2.6), layout="constrained")
    axes = figure.subplots()
    for rank in range(plan.schedule.ranks):
        held = [0.0, *(value / GIB for value in activations_over_time(plan, rank))]
        ends = [0.0, *(end * 1e3 for end in prediction.played.ends[rank])]
        axes.step(ends, held, where="post", linewidth=0.8, label=f"rank {rank}")
    axes.set(xlabel="time in the iteration, ms", ylabel="activations, GiB", ylim=(0, None))
    axes.set_xlim(0, _window(plan, prediction) * 1e3)
    figure.legend(*axes.get_legend_handles_labels(), ncols=8, loc="outside lower center")
    return figure


def _window(plan: Plan, prediction: Prediction) -> float:
    shown = _SHOWN_PER_RANK * plan.schedule.ranks + 2
    part = min(1.0, shown / plan.schedule.batches)
    return (prediction.played.seconds or 1.0) * part


def _spans(
    plan: Plan, prediction: Prediction, rank: int, kind: Kind, until: float
) -> list[tuple[float, float]]:
    """Return (start, duration) in ms of a rank's passes of a kind."""
    played = prediction.played
    timed = zip(plan.schedule.programs[rank], played.starts[rank], played.ends[rank], strict=True)
    return [
        (start * 1e3, (end - start) * 1e3)
        for item, start, end in timed
        if item.kind == kind and start < until
    ]


def _has(plan: Plan, kind: Kind) -> bool:
    return any(item.kind == kind for item in plan.schedule.programs[0])
