"""The figures of the report section."""

from __future__ import annotations

from collections.abc import Sequence

from common.artifact import Folder
from common.figure import method_style, save, style
from common.page import Figure
from common.record import Record, find, metric, samples
from vocab_parallel.paper.experiments import FIVE, QUICK, VOCABULARIES, short
from vocab_parallel.paper.published import published

_SIZE = (7.0, 2.6)


def mfu_bars(folder: Folder, records: Sequence[Record], sequence: int) -> Figure | None:
    """Draw MFU of the five methods over the vocabulary, with the paper's as hollow markers."""
    found = {
        (v, m): find(records, f"paper-{sequence}-{short(v)}", "simulate", m)
        for v in VOCABULARIES
        for m in FIVE
    }
    if not all(found.values()):
        return None
    printed = {
        (row.vocabulary, row.method): row.mfu
        for row in published("paper-table5")
        if (row.ranks, row.sequence) == (8, sequence)
    }
    from matplotlib.figure import Figure as Drawing

    name, width = f"mfu-{sequence}", 0.8 / len(FIVE)
    with style():
        drawing = Drawing(figsize=_SIZE, layout="constrained")
        axes = drawing.subplots()
        for number, method in enumerate(FIVE):
            places = [i + (number - 2) * width for i in range(len(VOCABULARIES))]
            ours = [metric(found[v, method], "mfu.of_320") or 0.0 for v in VOCABULARIES]
            look = method_style(number)
            axes.bar(
                places, ours, width * 0.9, label=method, color=look["color"], hatch=look["hatch"]
            )
            paper = [printed[v, method] for v in VOCABULARIES]
            axes.plot(places, paper, "o", mfc="white", mec="black", ms=3.5, zorder=3)
        axes.set_xticks(range(len(VOCABULARIES)), [short(v) for v in VOCABULARIES])
        axes.set(xlabel="vocabulary", ylabel="MFU, %")
        drawing.legend(*axes.get_legend_handles_labels(), ncols=5, loc="outside upper center")
        save(drawing, folder.at("figures", name))
    values = "; ".join(
        f"{short(v)} {m} {metric(found[v, m], 'mfu.of_320') or 0:.1f}"
        for v in VOCABULARIES
        for m in FIVE
    )
    return Figure(
        title=f"MFU on 8 GPUs, sequence {sequence}: simulated (bars) and published (markers)",
        svg=_relative(folder, name),
        alt=f"MFU in percent: {values}",
    )


def memory_per_rank(folder: Folder, records: Sequence[Record]) -> Figure | None:
    """Draw the allocated memory of every rank for the quick experiment's five methods."""
    found = [(m, find(records, QUICK, "simulate", m)) for m in FIVE]
    kept = [(m, samples(record, "memory.allocated")) for m, record in found if record]
    if not kept:
        return None
    from matplotlib.figure import Figure as Drawing

    with style():
        drawing = Drawing(figsize=_SIZE, layout="constrained")
        axes = drawing.subplots()
        width = 0.8 / len(kept)
        for number, (method, sizes) in enumerate(kept):
            places = [rank + (number - len(kept) / 2 + 0.5) * width for rank in range(len(sizes))]
            look = method_style(number)
            axes.bar(
                places, sizes, width * 0.9, label=method, color=look["color"], hatch=look["hatch"]
            )
        axes.set(xlabel="rank", ylabel="allocated, GiB")
        drawing.legend(*axes.get_legend_handles_labels(), ncols=5, loc="outside upper center")
        save(drawing, folder.at("figures", "memory-per-rank"))
    values = "; ".join(f"{m} {min(s):.1f} to {max(s):.1f}" for m, s in kept)
    return Figure(
        title=f"Peak memory of every rank, {QUICK}, simulated",
        svg=_relative(folder, "memory-per-rank"),
        alt=f"Allocated GiB over the ranks: {values}",
    )


def curves(folder: Folder, records: Sequence[Record]) -> Figure | None:
    """Draw the losses of the longest real runs of all methods in one picture."""
    runs = [r for r in records if r.case["verb"] == "run" and samples(r, "loss.last")]
    curve = [r for r in runs if r.experiment == "curve-cpu-2"]
    curve = curve or [r for r in runs if r.experiment == "tiny-cpu-4"]
    if not curve:
        return None
    from matplotlib.figure import Figure as Drawing

    with style():
        drawing = Drawing(figsize=_SIZE, layout="constrained")
        axes = drawing.subplots()
        for number, record in enumerate(curve):
            losses = samples(record, "loss.last")
            label = str(record.case["chosen"])
            colour = method_style(number)["color"]
            axes.plot(range(len(losses)), losses, label=label, color=colour, linewidth=0.8)
        axes.set(xlabel="step", ylabel="loss, nat")
        axes.legend(frameon=False)
        save(drawing, folder.at("figures", "losses"))
    return Figure(
        title=f"Training loss of {curve[0].experiment}, measured",
        svg=_relative(folder, "losses"),
        alt="Losses of " + ", ".join(str(r.case["chosen"]) for r in curve) + " over each other",
    )


def schedules(folder: Folder, records: Sequence[Record]) -> list[Figure]:
    """Return the schedule and memory pictures that simulations have drawn."""
    drawn: list[Figure] = []
    for record in records:
        stem = f"{record.experiment}.{record.case['chosen']}"
        for kind, what in (("schedule", "Schedule"), ("memory", "Live activations over time")):
            path = folder.at("figures", f"{stem}.{kind}.svg")
            if record.case["verb"] == "simulate" and path.is_file():
                time = metric(record, "iteration.time") or 0.0
                name = f"{record.case['chosen']}, {record.experiment}"
                drawn.append(
                    Figure(
                        title=f"{what} of {name}, its beginning",
                        svg=str(path.relative_to(folder.out)),
                        alt=f"{what} by rank; {time:.3f} s per iteration",
                    )
                )
    return drawn


def _relative(folder: Folder, name: str) -> str:
    return str(folder.at("figures", f"{name}.svg").relative_to(folder.out))
