"""Figures 8 to 12 of the paper: bars as published, markers as predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from common.artifact import Folder
from common.figure import method_style, save, style
from common.page import Figure
from common.record import Record, find, metric
from puzzle.paper.experiments import PAIRS
from puzzle.paper.publishing import Bar, figure_8, figure_9, figure_10, figure_11
from puzzle.paper.tables import simulated

SIZE = (7.0, 2.8)


def bars_figure(
    folder: Folder,
    name: str,
    title: str,
    label: str,
    groups: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    marks: Mapping[str, Sequence[float | None]],
    note: str = "Bars: published, faults of the logs mended. Markers: predicted by the cost model.",
    marked: str = "predicted",
) -> Figure:
    """Draw groups of bars, with the values they are held against as hollow markers on them.

    Gains stand on 1, which is none: from 0 those of a few percent could not be told apart.
    """
    from matplotlib.figure import Figure as Drawing

    width = 0.8 / len(series)
    ground = 1.0 if label == "gain" else 0.0
    with style():
        drawing = Drawing(figsize=SIZE, layout="constrained")
        axes = drawing.subplots()
        points = list[tuple[float, float]]()
        for number, (system, values) in enumerate(series.items()):
            places = [i + (number - (len(series) - 1) / 2) * width for i in range(len(groups))]
            look = method_style(number)
            heights = [(value or ground) - ground for value in values]
            axes.bar(
                places, heights, width * 0.9, bottom=ground,
                label=system, color=look["color"], hatch=look["hatch"],
            )  # fmt: skip
            points += [(x, y) for x, y in zip(places, marks.get(system, ()), strict=False) if y]
        if points:
            axes.plot(
                *zip(*points, strict=True), "o", mfc="white", mec="black", ms=3.5, label=marked
            )
        if ground:
            axes.axhline(ground, color="black", linewidth=0.6)
        axes.set_xticks(range(len(groups)), groups, fontsize=6)
        axes.set(ylabel=f"{label} (1: none)" if ground else label)
        drawing.legend(*axes.get_legend_handles_labels(), ncols=5, loc="outside upper center")
        save(drawing, folder.at("figures", name))
    told = "; ".join(
        f"{system}: " + ", ".join("-" if v is None else f"{v:.3g}" for v in values)
        for system, values in series.items()
    )
    return Figure(
        title=title,
        svg=str(Path(f"{folder.at('figures', name)}.svg").relative_to(folder.out)),
        alt=f"{label} for {', '.join(groups)}: {told}",
        note=note,
    )


def _gains(bars: list[Bar], one: str) -> tuple[list[str], dict[str, list[float | None]]]:
    base = {bar.key: bar.corrected for bar in bars if bar.system == one}
    order = [f"{c}-{pair.actor}-{pair.critic}" for c, pairs in PAIRS.items() for pair in pairs]
    keys = sorted(base, key=order.index)
    systems = list(dict.fromkeys(bar.system for bar in bars))
    of = {(bar.key, bar.system): bar.corrected for bar in bars}
    gains: dict[str, list[float | None]] = {
        system: [base[key] / of[key, system] if (key, system) in of else None for key in keys]
        for system in systems
    }
    return keys, gains


def _marks(
    records: Sequence[Record], bars: list[Bar], keys: list[str], methods: dict[str, str], name: str
) -> dict[str, list[float | None]]:
    """Return predicted gains over the first method named in `methods`."""
    by_key = {bar.key: bar for bar in bars}
    first = next(iter(methods.values()))
    made: dict[str, list[float | None]] = {}
    for system, method in methods.items():
        made[system] = []
        for key in keys:
            a, b = (simulated(records, by_key[key], m, name) for m in (first, method))
            made[system].append(a / b if a and b else None)
    return made


def figure_eight(folder: Folder, records: Sequence[Record]) -> Figure:
    """Draw figure 8; predicted gains divide the published DeepSpeed-Chat time."""
    bars = figure_8()
    keys, gains = _gains(bars, "DS-Chat")
    base = {bar.key: bar for bar in bars if bar.system == "DS-Chat"}
    marks: dict[str, list[float | None]] = {}
    for system, method in (("PUZZLE-Base", "base"), ("PUZZLE", "released")):
        ours = [simulated(records, base[key], method) for key in keys]
        marks[system] = [
            base[k].corrected / o if o else None for k, o in zip(keys, ours, strict=True)
        ]
    title = "Figure 8: gain over DeepSpeed-Chat"
    return bars_figure(folder, "figure-8", title, "gain", _short(keys), gains, marks)


def figure_nine(folder: Folder, records: Sequence[Record]) -> Figure:
    """Draw figure 9."""
    bars = figure_9()
    keys, gains = _gains(bars, "sequential")
    methods = {"sequential": "base", "merged": "released"}
    marks = _marks(records, bars, keys, methods, "training.time")
    title = "Figure 9: training stage, gain of the merged schedule"
    return bars_figure(folder, "figure-9", title, "gain", _short(keys), gains, marks)


def figure_ten(folder: Folder, records: Sequence[Record]) -> Figure:
    """Draw figure 10."""
    cells = figure_10()
    groups = [
        f"{c.actor}/{c.critic}".upper() + f"\n{c.batch}\n{','.join(map(str, c.layout))}"
        for c in cells
    ]
    ours: list[float | None] = []
    for cell in cells:
        a, b = (
            metric(find(records, cell.experiment, "simulate", m), "training.time")
            for m in ("base", "released")
        )
        ours.append(a / b if a and b else None)
    series: dict[str, Sequence[float | None]] = {
        "merged": [c.ratio for c in cells],
        "the script's constant": [c.constant for c in cells],
        "equal-cost formula": [c.equal_cost for c in cells],
    }
    title = "Figure 10: gain of the merged schedule over layouts (P, D, T)"
    return bars_figure(folder, "figure-10", title, "gain", groups, series, {"merged": ours})


def figure_eleven(folder: Folder, records: Sequence[Record]) -> Figure:
    """Draw figure 11."""
    bars = figure_11()
    keys, gains = _gains(bars, "train-opt")
    methods = {"train-opt": "base", "gen-opt": "generation", "PUZZLE": "released"}
    marks = _marks(records, bars, keys, methods, "step.time")
    title = "Figure 11: gain over the training layout for every stage"
    return bars_figure(folder, "figure-11", title, "gain", _short(keys), gains, marks)


def figure_twelve(folder: Folder, records: Sequence[Record]) -> Figure:
    """Draw figure 12: stacked parts, published and predicted side by side."""
    from matplotlib.figure import Figure as Drawing

    from puzzle.paper.publishing import figure_12

    parts = {
        "stage1_gen": "generation.time", "stage2_infer": "inference.time",
        "stage3_train": "training.time", "comm": "switch.time",
    }  # fmt: skip
    stacks: dict[str, list[float]] = {}
    for row in figure_12():
        key = f"{row['cluster']}\n{row['system'].replace('DSChat', 'DS-Chat')}"
        stacks.setdefault(key, []).append(float(row["seconds_corrected"]))
        method = {"PUZZLE-Base": "base", "PUZZLE": "released"}.get(row["system"])
        if method:
            bar = Bar(row["cluster"], "7B/7B", row["system"], 0.0, 0.0)
            ours = simulated(records, bar, method, parts[row["component"]]) or 0.0
            stacks.setdefault(f"{key}\npredicted", []).append(ours)
    with style():
        drawing = Drawing(figsize=SIZE, layout="constrained")
        axes = drawing.subplots()
        below = [0.0] * len(stacks)
        for number, part in enumerate(parts):
            heights = [values[number] for values in stacks.values()]
            look = method_style(number)
            axes.bar(
                range(len(stacks)), heights, 0.7, bottom=below,
                label=parts[part].removesuffix(".time"), color=look["color"], hatch=look["hatch"],
            )  # fmt: skip
            below = [a + b for a, b in zip(below, heights, strict=True)]
        axes.set_xticks(range(len(stacks)), list(stacks), fontsize=6)
        axes.set(ylabel="s")
        drawing.legend(*axes.get_legend_handles_labels(), ncols=4, loc="outside upper center")
        save(drawing, folder.at("figures", "figure-12"))
    told = "; ".join(
        f"{key.replace(chr(10), ' ')} {', '.join(f'{v:.2f}' for v in values)}"
        for key, values in stacks.items()
    )
    return Figure(
        title="Figure 12: parts of a step, 7B/7B",
        svg=str(Path(f"{folder.at('figures', 'figure-12')}.svg").relative_to(folder.out)),
        alt=f"Seconds of generation, inference, training, switch: {told}",
    )


def _short(keys: Sequence[str]) -> list[str]:
    """Return labels of keys such as orion-7b-350m: the cluster above the models."""
    parts = [key.split("-") for key in keys]
    return [f"{cluster}\n{'/'.join(models).upper()}" for cluster, *models in parts]
