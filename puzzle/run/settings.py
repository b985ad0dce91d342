"""What every rank of a run is told, and what a run hands back: values without torch."""

from statistics import median
from typing import Literal, NamedTuple

import msgspec

from puzzle.inputs.ppo import Ppo, Running
from puzzle.plan.plans import Plan

Backend = Literal["gloo", "nccl"]


class Job(NamedTuple):
    """What every rank of a run is told."""

    plan: Plan
    ppo: Ppo
    running: Running
    seed: int
    backend: Backend


class StepFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One PPO step, times in seconds of the slowest rank."""

    step: int
    reward: float
    """Mean score of the answers."""
    kl: float
    """Mean over answer tokens of log-probability minus the reference's."""
    actor_loss: float
    critic_loss: float
    actor_norm: float
    critic_norm: float
    generation_s: float
    """With the switch."""
    switch_s: float
    """Beside training (`running.switch_beside`) only what is left of it when generation begins."""
    inference_s: float
    training_s: float
    answer_tokens: float
    """Mean length of the answers."""
    actor_scale: float = 1.0
    """Factor on the loss of the next step; other than 1 in float16 only."""
    critic_scale: float = 1.0
    skipped: int = 0
    """Updates of both models left out so far, because a gradient was not finite."""

    @property
    def step_s(self) -> float:
        """The whole step."""
        return self.generation_s + self.inference_s + self.training_s


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """What one way of switching did; by rank where a tuple."""

    engine: str
    received: tuple[int, ...]
    """Bytes that came from other ranks, counted at the messages."""
    planned: tuple[int, ...]
    """Bytes that the plan (or the engine's formula) says."""
    messages: tuple[int, ...]
    seconds: float
    exact: bool
    """Every weight equals the one that it should be, bit by bit."""


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a run measured."""

    experiment: str
    backend: str
    device: str
    world_size: int
    seed: int
    first_step: int
    """Above 0 where the run went on from a checkpoint."""
    steps: tuple[StepFigures, ...]
    switches: tuple[Moved, ...]
    answers: tuple[str, ...]
    """The first answers of the last step."""
    digest: str
    """Of all sequences that were generated."""
    peak_bytes: int | None
    """Of the fullest GPU."""

    def median_of(self, field: str) -> float:
        """Return a field's median over the steps after the first."""
        steps = self.steps[1:] or self.steps
        return median(getattr(step, field) for step in steps)


class RankError(RuntimeError):
    """A rank failed or died, so the run was ended; the message is one line that says which."""
