"""The figures of Helix's report section, drawn as in the paper."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from common.figure import method_style, save, style
from common.page import Figure
from common.record import Record
from helix.cases import Folder
from helix.experiments import MODES, REPLAYS
from helix.published import SECTIONS, printed
from helix.tables import find, metric

SYSTEMS = ("helix", "swarm", "separate", "search")
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
    with style():
        fig, axes = pyplot.subplots(figsize=(6.4, 2.9))
        width = 0.8 / len(SYSTEMS)
        for number, system in enumerate(SYSTEMS):
            places = np.arange(len(groups)) + (number - (len(SYSTEMS) - 1) / 2) * width
            heights = [value or 0.0 for value in values[system]]
            label = "ours, searched" if system == "search" else system
            looks: Any = method_style(number)
            axes.bar(places, heights, width, label=label, **looks)
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
        svg, _ = save(fig, folder.figure(f"systems-{where}"))
        pyplot.close(fig)
    return Figure(
        title=f"{PAPER_FIGURES[where]}: decode throughput, {where}, simulated",
        svg=str(svg.relative_to(folder.out)),
        alt=f"Decoded tokens per second by system on the {where} cluster, offline and online,"
        " with the artifact's printed values as hollow circles",
        note=f"Circles: printed in section {SECTIONS[where]} of the artifact's README.",
    )
