"""A run's figures as metrics, and its summary."""

from __future__ import annotations

from common.record import Metric
from puzzle.plan.plans import Plan
from puzzle.run.settings import Moved, RunResult

_DIGITS = 12
"""Hexadecimal digits of a digest that a number holds exactly."""


def run_metrics(result: RunResult) -> tuple[Metric, ...]:
    """Return a run as metrics; samples are steps, or ranks where a figure belongs to ranks."""
    found = [Metric(name="steps", value=len(result.steps), unit="1")]
    if not result.steps:
        return tuple(found)
    for name, field in (
        ("step.time", "step_s"),
        ("generation.time", "generation_s"),
        ("switch.time", "switch_s"),
        ("inference.time", "inference_s"),
        ("training.time", "training_s"),
    ):
        times = tuple(getattr(step, field) for step in result.steps)
        value = result.median_of(field)
        found.append(Metric(name=name, value=value, unit="s", samples=times[1:], warmups=times[:1]))
    for name, field in (
        ("reward", "reward"),
        ("rewards.failed", "rewards_failed"),
        ("prompts.replaced", "replaced"),
        ("divergence", "kl"),
        ("divergence.weight", "kl_weight"),
        ("loss.actor", "actor_loss"),
        ("loss.critic", "critic_loss"),
        ("norm.actor", "actor_norm"),
        ("norm.critic", "critic_norm"),
        ("answer.tokens", "answer_tokens"),
        ("answers.cut_off", "cut_off"),
        ("tokens.clipped", "clipped"),
        ("scale.actor", "actor_scale"),
        ("scale.critic", "critic_scale"),
        ("updates.skipped", "skipped"),
    ):
        values = tuple(float(getattr(step, field)) for step in result.steps)
        found.append(Metric(name=name, value=values[-1], unit="1", samples=values))
    held = [step.held_reward for step in result.steps if step.held_reward is not None]
    if held:
        found.append(Metric(name="reward.held", value=held[-1], unit="1", samples=tuple(held)))
    tenth = max(1, len(result.steps) // 10)
    rewards = [step.reward for step in result.steps]
    found += [
        Metric(name="reward.early", value=sum(rewards[:tenth]) / tenth, unit="1"),
        Metric(name="reward.late", value=sum(rewards[-tenth:]) / tenth, unit="1"),
        Metric(name="sequences.digest", value=int(result.digest[:_DIGITS], 16), unit="1"),
        Metric(name="prompts.left_out", value=result.prompts_left_out, unit="1"),
    ]
    for moved in result.switches:
        found += _moved(moved)
    if result.peak_bytes is not None:
        found.append(Metric(name="memory.peak", value=result.peak_bytes / 2**30, unit="GiBy"))
    return tuple(found)


def _moved(moved: Moved) -> list[Metric]:
    stem = f"moved.{moved.engine}"
    received = tuple(map(float, moved.received))
    return [
        Metric(name=f"{stem}.received", value=sum(moved.received), unit="By", samples=received),
        Metric(name=f"{stem}.planned", value=sum(moved.planned), unit="By"),
        Metric(name=f"{stem}.messages", value=max(moved.messages), unit="1"),
        Metric(name=f"{stem}.time", value=moved.seconds, unit="s"),
        Metric(name=f"{stem}.exact", value=int(moved.exact), unit="1"),
    ]


def run_summary(plan: Plan, result: RunResult) -> str:
    """Return a run in one line."""
    if not result.steps:
        return f"nothing to do: a checkpoint of step {result.first_step} is there"
    first, last, choice = result.steps[0], result.steps[-1], plan.choice
    return (
        f"{len(result.steps)} steps on {result.world_size} {result.backend} ranks (train"
        f" {choice.training}, generate {choice.generation}, {choice.schedule}): reward"
        f" {first.reward:.4f} to {last.reward:.4f}, {result.median_of('step_s'):.3f} s a step:"
        f" generation {result.median_of('generation_s'):.3f}, inference"
        f" {result.median_of('inference_s'):.3f}, training {result.median_of('training_s'):.3f}"
        + _overlong(result)
    )


def _overlong(result: RunResult) -> str:
    """Return what became of prompts that were too long; empty where there were none."""
    if result.prompts_left_out:
        return f"; {result.prompts_left_out} prompts too long and left out"
    return f"; {result.prompts_cut} prompts too long and cut" if result.prompts_cut else ""
