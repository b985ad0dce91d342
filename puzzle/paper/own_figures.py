"""The figure of what the paper does not show: a reward that rises."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.artifact import Folder
from common.figure import method_style, save, style
from common.page import Figure
from common.record import Record, metric, samples
from puzzle.paper.figures import SIZE


def curves(folder: Folder, records: Sequence[Record]) -> Figure | None:
    """Draw the rewards of the learning runs in one picture."""
    runs = [r for r in records if r.experiment.startswith("learn-") and samples(r, "reward")]
    if not runs:
        return None
    from matplotlib.figure import Figure as Drawing

    with style():
        drawing = Drawing(figsize=SIZE, layout="constrained")
        axes = drawing.subplots()
        for number, record in enumerate(runs):
            look = method_style(number)
            rewards = samples(record, "reward")
            axes.plot(rewards, label=record.experiment, color=look["color"], linewidth=0.9)
        axes.set(xlabel="PPO step", ylabel="mean reward", ylim=(0, 1))
        axes.legend(frameon=False)
        save(drawing, folder.at("figures", "rewards"))
    told = "; ".join(
        f"{r.experiment}: {samples(r, 'reward')[0]:.2f} to {metric(r, 'reward.late') or 0:.2f}"
        for r in runs
    )
    return Figure(
        title="A programmed reward rises, measured",
        svg=str(Path(f"{folder.at('figures', 'rewards')}.svg").relative_to(folder.out)),
        alt=f"Mean reward over PPO steps: {told}",
        note="The reward is the part of lower-case letters and spaces in the answer; the models are"
        " tiny and begin random. Where several layouts ran, their curves lie on each other.",
    )
