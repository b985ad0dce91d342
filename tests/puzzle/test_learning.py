"""A tiny model really raises a reward, and the same way in different layouts and engines."""

import msgspec
import pytest

from puzzle.inputs.examples import examples
from puzzle.plan.plans import make_plan
from puzzle.run.launch import launch
from puzzle.run.settings import Job, RunResult


def align(name: str, steps: int) -> RunResult:
    experiment = examples()[name]
    running = msgspec.structs.replace(experiment.running, steps=steps)
    return launch(Job(make_plan(experiment, "given"), experiment.ppo, running, 0, "gloo"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_reward_rises_over_two_hundred_steps_in_the_same_curve_whatever_the_layout():
    curves = [
        [step.reward for step in align(name, 200).steps]
        for name in ("learn-cpu-1", "learn-cpu-2", "learn-cpu-2-replicas")
    ]
    for curve in curves:
        assert sum(curve[:5]) / 5 < 0.2
        assert sum(curve[-20:]) / 20 > 0.9
        assert curve[:20] == pytest.approx(curves[0][:20], abs=0.02)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_deepspeed_zero3_generates_and_learns_the_same():
    ours, theirs = align("tiny-cpu-2", 3), align("zero3-cpu-2", 3)
    assert ours.digest == theirs.digest
    for a, b in zip(ours.steps, theirs.steps, strict=True):
        for field in ("reward", "kl", "actor_loss", "critic_loss", "actor_norm", "critic_norm"):
            assert getattr(a, field) == pytest.approx(getattr(b, field), rel=1e-3, abs=1e-6), field
    (moved,) = theirs.switches
    assert moved.exact
    assert moved.received == moved.planned
