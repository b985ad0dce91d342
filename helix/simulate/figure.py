"""A picture of a plan: who holds which layers and, where it has served, how long answers took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np

from helix.inputs.cluster import FIRST
from helix.plan.placement import UNUSED
from helix.plan.plans import Plan, Service
from helix.simulate.system import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PHASES = {"prompt": "prompts", "decode": "decoded tokens"}
_WIDTH_IN, _ROW_IN, _EDGE_IN, _LEAST_IN = 9.0, 0.17, 1.1, 3.0


class Latencies(Protocol):
    """What a service did, simulated or measured."""

    @property
    def prompt_s(self) -> Floats:
        """Seconds to the first token, sorted."""
        ...

    @property
    def decode_s(self) -> Floats:
        """Seconds of each further token, sorted."""
        ...


def draw(plan: Plan, served: Mapping[str, Latencies]) -> Figure:
    """Return a bar of layers per machine and, of services in `served`, latencies' distributions."""
    from matplotlib.figure import Figure

    rows = [row for service in plan.services for row in _rows(plan, service)]
    size = (_WIDTH_IN, max(_LEAST_IN, _ROW_IN * len(rows) + _EDGE_IN))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, 3 if served else 1, squeeze=False)[0]
    _placement(panels[0], rows, plan.services[0].layers)
    for axes, phase, what in zip(panels[1:], PHASES, PHASES.values(), strict=False):
        for name, one in served.items():
            seconds: Floats = getattr(one, f"{phase}_s")
            axes.step(seconds, np.arange(1, len(seconds) + 1) / len(seconds), label=name)
        axes.set(xlabel=f"{phase} latency, s", ylabel=f"share of {what}", ylim=(0, 1))
        axes.set_xlim(left=0)
        if len(served) > 1:
            axes.legend(frameon=False, loc="lower right")
    return figure


def _rows(plan: Plan, service: Service) -> list[tuple[str, int, int, float]]:
    """Return label, first and end layer and share of the flow of each machine at work."""
    found = list[tuple[str, int, int, float]]()
    for i in sorted(range(len(service.machines)), key=lambda i: service.intervals[i]):
        first, end = service.intervals[i]
        if (first, end) == UNUSED:
            continue
        through = sum(route.flow for route in service.routes if route.tail == i + FIRST)
        share = through / service.flow if service.flow > 0 else 1.0
        machine = service.machines[i]
        found.append((f"{machine} {plan.machines[machine]}", first, end, share))
    return found


def _placement(axes: Axes, rows: list[tuple[str, int, int, float]], layers: int) -> None:
    places = range(len(rows))
    axes.barh(
        places,
        [end - first for _, first, end, _ in rows],
        left=[first for _, first, _, _ in rows],
        height=0.8,
        color=[(0.25, 0.56, 0.85, 0.2 + 0.8 * min(1.0, share)) for *_, share in rows],
    )
    axes.set_yticks(places, [label for label, *_ in rows], fontsize=7)
    axes.set(xlabel="layers held (darker: more of the flow)", ylabel="machine", xlim=(0, layers))
    axes.invert_yaxis()
