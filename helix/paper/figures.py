"""The figures of Helix's report section, drawn as in the paper."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from common import files
from common.artifact import Folder
from common.figure import method_style, save, style
from common.page import Figure
from common.record import Record, find, metric
from helix.paper.experiments import MILPS
from helix.paper.published import SECTIONS, deep_dive, milp_incumbents, printed
from helix.paper.replays import MODES, PLACINGS, REPLAYS, SCHEDULINGS
from helix.plan import plans

SYSTEMS = ("helix", "swarm", "separate", "sp_plus", "search")
LABELS = {"search": "ours, searched", "sp_plus": "separate+"}
PAPER_FIGURES = {"single": "Figure 5", "geo": "Figure 7", "het": "Figure 8"}


def systems(folder: Folder, records: Sequence[Record], where: str) -> Figure | None:
    """Draw decode throughput by system, printed values as hollow markers."""
    from matplotlib import pyplot

    models = list(dict.fromkeys(m for w, m, _ in REPLAYS if w == where))
    groups = [(model, mode) for model in models for mode in MODES]
    values = {
        system: [
            metric(find(records, f"{where}-{model}-{system}-{mode}"), "decode.throughput")
            for model, mode in groups
        ]
        for system in SYSTEMS
    }
    if not any(value for row in values.values() for value in row):
        return None
    shown = [system for system in SYSTEMS if any(values[system])]
    with style():
        fig, axes = pyplot.subplots(figsize=(6.4, 2.9))
        width = 0.8 / len(shown)
        for number, system in enumerate(shown):
            places = np.arange(len(groups)) + (number - (len(shown) - 1) / 2) * width
            heights = [value or 0.0 for value in values[system]]
            looks: Any = method_style(SYSTEMS.index(system))
            axes.bar(places, heights, width, label=LABELS.get(system, system), **looks)
            theirs = [printed(where, m, system, mode) for m, mode in groups]
            marks = [(x, r.decode) for x, r in zip(places, theirs, strict=True) if r]
            if marks:
                axes.plot(
                    *zip(*marks, strict=True), "o", mfc="none", mec="black", ms=4,
                    label="printed" if number == 0 else None,
                )  # fmt: skip
        axes.set_xticks(range(len(groups)), [f"{model}\n{mode}" for model, mode in groups])
        axes.set_ylabel("decoded tokens/s")
        axes.legend(ncols=5, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, 1.17))
        svg, _ = save(fig, folder.at("figures", f"systems-{where}"))
        pyplot.close(fig)
    return Figure(
        title=f"{PAPER_FIGURES[where]}: decode throughput, {where}, simulated",
        svg=str(svg.relative_to(folder.out)),
        alt=f"Decoded tokens per second by system on the {where} cluster, offline and online,"
        " with the artifact's printed values as hollow circles",
        note=f"Circles: printed in section {SECTIONS[where]} of the artifact's README.",
    )


def deep_dives(folder: Folder, records: Sequence[Record]) -> Figure | None:
    """Draw figures 9 and 10: decode throughput by placement and by scheduler on three regions."""
    from matplotlib import pyplot

    panels = {
        "placement (Figure 9)": [(s, f"geo-placement-{s}", "6.6", s) for s in PLACINGS],
        "scheduler (Figure 10)": [
            (s, f"geo-scheduling-{s}", "6.7", "helix" if s == "maxflow" else s) for s in SCHEDULINGS
        ],
    }
    if all(find(records, name) is None for bars in panels.values() for _, name, *_ in bars):
        return None
    with style():
        fig, both = pyplot.subplots(1, 2, figsize=(6.4, 2.6), sharey=True)
        for axes, (title, bars) in zip(both, panels.items(), strict=True):
            for x, (_, name, section, system) in enumerate(bars):
                looks: Any = method_style(x)
                axes.bar(x, metric(find(records, name), "decode.throughput") or 0.0, 0.6, **looks)
                theirs = deep_dive(section, system)
                if theirs:
                    axes.plot([x], [theirs.decode], "o", mfc="none", mec="black", ms=4)
            axes.set_xticks(range(len(bars)), [bar[0].replace("_", "\n") for bar in bars])
            axes.set_xlabel(title)
        both[0].set_ylabel("decoded tokens/s")
        svg, _ = save(fig, folder.at("figures", "deep-dives"))
        pyplot.close(fig)
    return Figure(
        title="Figures 9 and 10: one placement or scheduler for another, geo, simulated",
        svg=str(svg.relative_to(folder.out)),
        alt="Decoded tokens per second on the three regions by placement under Helix's scheduler,"
        " and by scheduler on Helix's placement, printed values as hollow circles",
        note="Circles: printed in sections 6.6 and 6.7 of the artifact's README. Petals' maximum"
        " flow is not unique, and the original's choice among them follows a hash set.",
    )


def quality(folder: Folder, records: Sequence[Record]) -> Figure | None:
    """Draw figure 12: the flow found over time, by the MILP here, there, and by our search."""
    from matplotlib import pyplot

    panels = {
        "10 machines": ("quality10-search", ("quality10-milp",)),
        "geo, 24 machines": ("geo-llama70b-flow", tuple(n for n in MILPS if n.startswith("geo"))),
    }
    if all(find(records, name, "plan") is None for name in MILPS):
        return None
    with style():
        fig, both = pyplot.subplots(1, 2, figsize=(6.8, 3.0))
        for axes, (title, (ours, milps)) in zip(both, panels.items(), strict=True):
            for number, name in enumerate((ours, *milps)):
                _draw_trace(axes, folder, find(records, name, "plan"), number)
            theirs = milp_incumbents(milps[0])
            axes.plot(
                *zip(*theirs, strict=True), "o", mfc="none", mec="black", ms=4, label="published"
            )
            axes.set_xscale("log")
            axes.set_title(title)
            axes.set_xlabel("seconds")
            axes.legend(fontsize=6)
        both[0].set_ylabel("flow, tokens/s")
        svg, _ = save(fig, folder.at("figures", "quality"))
        pyplot.close(fig)
    return Figure(
        title="Figures 11 and 12: the flow found over time",
        svg=str(svg.relative_to(folder.out)),
        alt="Flow of the best placement over time on a logarithmic axis, for the MILP with and"
        " without pruning, start and cap by HiGHS, for our search, and as published with Gurobi",
        note="Lines: on this machine, HiGHS and our search. Circles: logs of the artifact, Gurobi"
        " with an academic licence on 14 cores.",
    )


def _draw_trace(axes: Any, folder: Folder, record: Record | None, number: int) -> None:
    """Draw what a search found over time, from the plan file of its record if it is still that."""
    if record is None or not record.files:
        return
    (name, digest), *_ = record.files.items()
    path = folder.out / name
    if not path.is_file() or files.digest(path) != digest:
        return
    plan = files.read_plan(path, plans.Plan, plans.check)
    points = [(max(p.seconds, 0.1), p.value) for p in plan.trace if p.value is not None]
    points = [*points, (max(plan.seconds, 0.1), plan.flow)]
    label, look = record.experiment, f"C{number}"
    axes.step(*zip(*points, strict=True), where="post", label=label, lw=1.2, color=look)
