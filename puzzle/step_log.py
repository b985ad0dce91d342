"""A run's log in the original's format, written as the steps finish."""

import re
from collections.abc import Iterator
from pathlib import Path

from puzzle.inputs.logs import latency_line, step_line, switch_line
from puzzle.inputs.ppo import Running
from puzzle.plan.plans import Plan
from puzzle.run.settings import StepFigures

_STEP = re.compile(r"\| step: (\d+)/")


class StepLog:
    """Called with each step; the file is whole after every one, whatever ends the run.

    A run that goes on from a checkpoint goes on in its log, from the step that it begins with.
    The baseline's steps are written as DeepSpeed-Chat prints its own.
    """

    def __init__(self, path: Path, plan: Plan, running: Running) -> None:
        self.path, self.plan, self.running = path, plan, running
        self.begun = False

    def __call__(self, step: StepFigures) -> None:
        """Add a step."""
        if not self.begun:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            kept = self._before(step.step) or self._head()
            self.path.write_text("".join(f"{line}\n" for line in kept))
            self.begun = True
        with self.path.open("a") as file:
            file.write("".join(f"{line}\n" for line in self._lines(step)))

    def _before(self, first: int) -> list[str]:
        """Return what the file has up to a step; nothing where that is the first of all."""
        if not first or not self.path.is_file():
            return []
        lines = self.path.read_text().splitlines()
        ends = [
            number
            for number, line in enumerate(lines, 1)
            if (found := _STEP.search(line)) and int(found[1]) < first
        ]
        return lines[: ends[-1]] if ends else []

    def _head(self) -> list[str]:
        layout = self.plan.choice.training
        return [
            f"using world size: {layout.world}, data-parallel-size: {layout.data},"
            f" tensor-model-parallel size: {layout.tensor}, pipeline-model-parallel size:"
            f" {layout.pipeline}",
            f"  use_shadow ......... {self.plan.switch is not None}",
            f"  bulk_switch_on ......... {self.plan.choice.schedule == 'merged'}",
        ]

    def _lines(self, step: StepFigures) -> Iterator[str]:
        batch = self.plan.work.batch
        if self.running.engine == "deepspeed":
            times = step.switch_s, step.generation_s - step.switch_s, step.training_s
            yield latency_line(*times, step.inference_s, batch=batch)
            return
        if self.plan.switch is not None:
            yield switch_line(step.switch_s)
        fields = {
            "average_reward": step.reward,
            "act_loss": step.actor_loss,
            "cri_loss": step.critic_loss,
        }
        ms = (1e3 * step.generation_s, 1e3 * step.inference_s, 1e3 * step.training_s)
        yield step_line(0, step.step, self.running.steps, batch, fields, ms)


def told(step: StepFigures, steps: int) -> str:
    """Return a step in one line for whoever waits."""
    return (
        f"step {step.step + 1}/{steps}: reward {step.reward:.4f}, divergence {step.kl:.4g}, losses"
        f" {step.actor_loss:.4g} and {step.critic_loss:.4g}, {step.answer_tokens:.1f} tokens an"
        f" answer, {step.step_s:.3f} s"
    )
