"""A run's log in the original's format (specification section 4.2), written as steps finish."""

import re
from collections.abc import Iterator
from pathlib import Path
from sys import maxsize

import msgspec

from common.files import write
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
            kept = self._before(step.step) or self._head()
            write(self.path, "".join(f"{line}\n" for line in kept))
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


class StepLines:
    """Called with each step, which it adds as a line of JSON: all figures, for other programs.

    Lines of earlier steps stay where a run goes on from a checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.begun = path, False

    def __call__(self, step: StepFigures) -> None:
        """Add a step."""
        if not self.begun:
            kept = self.path.read_bytes().splitlines() if self.path.is_file() else []
            before = [line for line in kept if _number(line) < step.step]
            write(self.path, b"".join(line + b"\n" for line in before))
            self.begun = True
        with self.path.open("ab") as file:
            file.write(msgspec.json.encode(step) + b"\n")


def _number(line: bytes) -> int:
    """Return which step a line is of; a line that is none is of no step before."""
    try:
        return int(msgspec.json.decode(line)["step"])
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return maxsize


def told(step: StepFigures, steps: int) -> str:
    """Return a step in one line for whoever waits."""
    return (
        f"step {step.step + 1}/{steps}: reward {step.reward:.4f}, divergence {step.kl:.4g}, losses"
        f" {step.actor_loss:.4g} and {step.critic_loss:.4g}, {step.answer_tokens:.1f} tokens an"
        f" answer, {step.step_s:.3f} s"
        + (f", held prompts {step.held_reward:.4f}" if step.held_reward is not None else "")
    )


def step_line(
    epoch: int, step: int, steps: int, batch: int, fields: dict[str, float], ms: tuple[float, ...]
) -> str:
    """Return the original's line of a PPO step; `ms` are its three stages' milliseconds."""
    generation, inference, training = ms
    return (
        f"epoch: {epoch} | step: {step}/{steps} | ppo_ep: 1 | global_batch_size: {batch} |"
        f" average_reward: {fields['average_reward']} | act_loss: {fields['act_loss']} |"
        f" cri_loss: {fields['cri_loss']} | stage 1(gen.) (ms): {generation} |"
        f" stage 2(infer.) (ms): {inference} | stage 3(train.) (ms): {training} |"
        f" e2e_time (ms): {sum(ms)}"
    )


def latency_line(gather: float, generate: float, train: float, others: float, *, batch: int) -> str:
    """Return DeepSpeed-Chat's line of a PPO step, seconds; the gather is not in `generate`."""
    total = gather + generate + train + others
    parts = (("Gather latency", gather), ("Generate time", generate), ("Training time", train))
    told = " ".join(f"|{name}={s:.6f}s ({100 * s / total:.2f}%)" for name, s in parts)
    return (
        f"|E2E latency={total:.6f}s {told} |Others={others:.6f} ({100 * others / total:.2f}%)"
        f"|CurSamplesPerSec={batch / total:.2f}"
    )


def switch_line(seconds: float) -> str:
    """Return the original's line of a switch."""
    return f"apply shadow model time: {seconds:.9f}"
