"""A picture of a run: where each step's time went, and the reward over the steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.figure import method_style
from puzzle.run.settings import RunResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STAGES = {
    "generation": "generation_s",
    "inference": "inference_s",
    "training": "training_s",
}


def draw(result: RunResult) -> Figure:
    """Draw stage times in seconds, stacked step by step, above the mean reward of the answers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    numbers = [step.step + 1 for step in result.steps]
    bottom = [0.0] * len(numbers)
    for place, (name, field) in enumerate(_STAGES.items()):
        heights = [float(getattr(step, field)) for step in result.steps]
        look = method_style(place)
        above.bar(
            numbers, heights, 0.8, bottom=bottom, label=name, color=look["color"],
            hatch=look["hatch"],
        )  # fmt: skip
        bottom = [a + b for a, b in zip(bottom, heights, strict=True)]
    above.set(ylabel="s")
    above.legend(frameon=False, ncols=3)
    below.plot(numbers, [step.reward for step in result.steps], "o-", markersize=3, label="prompts")
    held = [(s.step + 1, s.held_reward) for s in result.steps if s.held_reward is not None]
    if held:
        below.plot(*zip(*held, strict=True), "s--", markersize=3, label="held prompts")
        below.legend(frameon=False)
    below.set(xlabel="PPO step", ylabel="mean reward")
    below.xaxis.get_major_locator().set_params(integer=True)
    return figure
