"""What every rank of a run is told, and what a run hands back: values without torch."""

from statistics import median
from typing import NamedTuple

import msgspec

from common.ranks import Backend
from puzzle.inputs.ppo import Ppo, Running
from puzzle.plan.plans import Plan


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
    rewards_failed: int = 0
    """Answers at which a reward of the user's own raised or did not end."""
    replaced: int = 0
    """Prompts whose answers were all scored alike, and whose place others took."""
    held_reward: float | None = None
    """Mean score of answers to the held prompts after this step; None where it was not asked."""
    kl: float
    """Mean over answer tokens of log-probability minus the reference's."""
    kl_weight: float = 0.0
    """Of the divergence in this step's rewards or loss."""
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
    cut_off: float = 0.0
    """Part of the answers that were cut off before an end token."""
    clipped: float = 0.0
    """Part of the learnt tokens whose ratio is outside the clip, mean over updates."""
    entropy: float | None = None
    """Of the distribution drawn from, nats, mean over updates; None where it has no weight."""
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
    prompts: int = 0
    """That were asked in turn."""
    prompts_left_out: int = 0
    """Longer than `work.prompt`."""
    prompts_cut: int = 0
    """Longer than `work.prompt` and asked by their last tokens."""

    def median_of(self, field: str) -> float:
        """Return a field's median over the steps after the first."""
        steps = self.steps[1:] or self.steps
        return median(getattr(step, field) for step in steps)
