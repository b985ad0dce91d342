"""Section 3's figures that are no sweeps: what model parallelism costs, and when it still pays.

Figures 8 and 9 follow from the profile, Figure 10 from a queueing model, Figure 7b puts six sweeps
into one drawing. AlpaServe §3.3, §3.4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from beta.inputs.cluster import GIB
from beta.inputs.profile import SINGLE, Config, Profile, read_profiles
from beta.paper.derived import attainment, swept
from beta.paper.section3 import OVERHEADS
from common.artifact import Folder
from common.figure import method_style, save, style
from common.page import Figure, Table
from common.record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MODELS = ("bert-1.3b", "bert-2.6b", "bert-6.7b")
DEVICES = (1, 2, 4, 8)
WIDTH_IN, HEIGHT_IN = 7.0, 2.2


class Cost(NamedTuple):
    """One model on some devices."""

    latency_s: float
    throughput: float
    """Requests/s."""
    memory_gib: float
    """Per device."""
    communication_s: float = 0.0
    uneven_s: float = 0.0
    """What the slowest stage costs beyond the mean, over all stages."""


def pipelined(profile: Profile, devices: int) -> Cost:
    """Return a model cut into stages (inter-operator parallelism)."""
    record, alone = profile.records[Config(1, devices)], profile.single_s
    stages = record.stage_s[1]
    communication = max(sum(stages) - alone, 0.0)
    uneven = max(devices * max(stages) - communication - alone, 0.0)
    memory = record.memory_bytes / GIB
    return Cost(sum(stages), 1 / max(stages), memory, communication, uneven)


def sharded(profile: Profile, devices: int) -> Cost:
    """Return a model whose operators are cut (intra-operator parallelism)."""
    record = profile.records[Config(devices, 1)]
    (latency,) = record.stage_s[1]
    communication = latency - profile.single_s / devices
    return Cost(latency, 1 / latency, record.memory_bytes / GIB, communication)


def replicated(profile: Profile, devices: int) -> Cost:
    """Return a whole model on every device."""
    memory = profile.records[SINGLE].memory_bytes / GIB
    return Cost(profile.single_s, devices / profile.single_s, memory)


Draw = Callable[[Sequence["Axes"]], None]
WAYS = {"pipeline": pipelined, "tensor": sharded, "replicas": replicated}


def costs() -> Table:
    """Return Figures 8 and 9 and the overhead bars, from the profile."""
    profiles = read_profiles()
    rows = list[tuple[str | float, ...]]()
    for model in MODELS:
        for way, cost in WAYS.items():
            for devices in DEVICES:
                found = cost(profiles[model], devices)
                rows.append((model, way, devices, *(float(f"{v:.4g}") for v in found)))
    return Table(
        title="Figures 8 and 9: what splitting a model costs",
        columns=(
            "model",
            "way",
            "devices",
            "latency, s",
            "requests/s",
            "GiB a device",
            "communication, s",
            "uneven stages, s",
        ),
        rows=tuple(rows),
        note="Computed from the authors' measured profile (its partition by dynamic programming);"
        " their figures' own measurements, with a partition by hand beside, were not published.",
    )


def most_communication(utilisation: float) -> float:
    """Return the largest factor on all stages with which two stages wait no longer than replicas.

    Two models, Poisson arrivals, constant service (M/D/1): each on its own device waits
    D + rD / (4 - 2r) for a utilisation r = rate x D of both together; a pipeline of two stages of
    xD/2 each waits xD + r x^2 D / (8 - 4rx). AlpaServe §3.4.
    """
    r = utilisation
    root = math.sqrt(64 - 96 * r + 56 * r**2 - 12 * r**3 + r**4)
    return (-8 + r**2 + root) / (3 * (r**2 - 2 * r))


def most_unevenness(utilisation: float) -> float:
    """Return the largest factor on the slower of two stages, the latency unchanged.

    The pipeline waits D + r x^2 D / (8 - 4rx).
    """
    r = utilisation
    return (r - math.sqrt(8 - 4 * r + r**2)) / (r - 2)


def overheads(records: Sequence[Record]) -> Table:
    """Return Figure 7b: attainment by target and overhead of even pipelines."""
    lines = _lines(records)
    slos = sorted({x for points in lines.values() for x in points})
    rows = [(x, *(_percent(points.get(x)) for points in lines.values())) for x in slos]
    return Table(
        title="Figure 7b: in time, %, by latency target and overhead of the pipeline",
        columns=("SLO scale", *lines),
        rows=tuple(rows) if lines else (),
        note="Stages of overhead x latency / 8 in place of the profile's; the published figure's"
        " points are not available as numbers.",
    )


def _lines(records: Sequence[Record]) -> dict[str, dict[float, float]]:
    found, by_experiment = dict[str, dict[float, float]](), swept(records)
    for overhead in OVERHEADS:
        mine = by_experiment.get(f"fig7b-{overhead}", [])
        if mine:
            found[f"pipeline, {overhead}"] = _points(mine)
    replicas = [r for r in by_experiment.get("fig7", []) if r.case["method"] == "sr-uniform"]
    return found | {"replicas": _points(replicas)} if found and replicas else found


def _points(records: Iterable[Record]) -> dict[float, float]:
    return {float(record.case["x"]): attainment(record) or 0.0 for record in records}


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 1)


def drawings(folder: Folder, records: Sequence[Record]) -> list[Figure]:
    """Draw Figures 7b, 8 to 9 and 10, where section 3 was done."""
    lines = _lines(records)
    if not lines:
        return []
    return [_draw_overheads(folder, lines), _draw_costs(folder), _draw_queues(folder)]


def _draw_overheads(folder: Folder, lines: dict[str, dict[float, float]]) -> Figure:
    def draw(panels: Sequence[Axes]) -> None:
        for number, (name, points) in enumerate(lines.items()):
            dashed = "--" if name == "replicas" else "-"
            look = method_style(number)["color"]
            shares = [100 * share for share in points.values()]
            panels[0].plot(list(points), shares, dashed, color=look, label=name)
        panels[0].set_xlabel("SLO scale")
        panels[0].set_ylabel("in time, %")

    ends = [f"{name} {100 * points[max(points)]:.1f} %" for name, points in lines.items()]
    alt = f"in time at the loosest target: {'; '.join(ends)}"
    return _figure(folder, "fig7b", 1, draw, "Figure 7b: attainment by target and overhead", alt)


def _draw_costs(folder: Folder) -> Figure:
    profile = read_profiles()["bert-2.6b"]
    titles = ("latency, s", "requests/s", "GiB a device")

    def draw(panels: Sequence[Axes]) -> None:
        for panel, field, title in zip(panels, range(3), titles, strict=True):
            for number, (way, cost) in enumerate(WAYS.items()):
                values = [cost(profile, devices)[field] for devices in DEVICES]
                panel.plot(DEVICES, values, "o-", color=method_style(number)["color"], label=way)
            panel.set_xlabel("devices")
            panel.set_ylabel(title)

    parts = [f"{way} {cost(profile, 8).latency_s:.3g} s" for way, cost in WAYS.items()]
    alt = f"bert-2.6b on 8 devices takes: {'; '.join(parts)}"
    return _figure(folder, "fig9", 3, draw, "Figures 8 and 9: what splitting costs, bert-2.6b", alt)


def _draw_queues(folder: Folder) -> Figure:
    points = [i / 50 for i in range(1, 100)]

    def draw(panels: Sequence[Axes]) -> None:
        for number, (name, most) in enumerate(
            (("communication", most_communication), ("uneven stages", most_unevenness))
        ):
            values = [most(r) for r in points]
            panels[0].plot(points, values, color=method_style(number)["color"], label=name)
        panels[0].set_xlabel("utilisation of two devices")
        panels[0].set_ylabel("largest factor")

    alt = (
        f"largest factor at a utilisation of 1: communication {most_communication(1):.3f},"
        f" uneven stages {most_unevenness(1):.3f}"
    )
    title = "Figure 10: overheads up to which a pipeline waits no longer than replicas"
    return _figure(folder, "fig10", 1, draw, title, alt)


def _figure(folder: Folder, name: str, panels: int, draw: Draw, title: str, alt: str) -> Figure:
    from matplotlib.figure import Figure as Drawing

    with style():
        drawing = Drawing(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
        axes = drawing.subplots(1, panels, squeeze=False)[0]
        draw(axes)
        handles, labels = axes[0].get_legend_handles_labels()
        drawing.legend(handles, labels, frameon=False, ncols=4, loc="outside upper center")
        svg, _ = save(drawing, folder.at("figures", name))
    shown = str(svg.relative_to(folder.out))
    return Figure(
        title=title, svg=shown, alt=alt, note="Ours; no published numbers to compare with."
    )
