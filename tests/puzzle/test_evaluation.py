"""Evaluation on held prompts, and the steps as lines of JSON."""

import json
from pathlib import Path

import msgspec
import pytest

from common.errors import InputError
from puzzle.inputs.examples import examples
from puzzle.inputs.experiment import Choice, Experiment
from puzzle.inputs.layout import Layout
from puzzle.inputs.ppo import Running
from puzzle.plan.plans import make_plan
from puzzle.run.launch import launch
from puzzle.run.settings import Job, StepFigures
from puzzle.run.step_log import StepLines
from tests.puzzle.rank_tasks import PATIENCE_S

pytestmark = pytest.mark.timeout(600)

REWARD = [{"score": "letters:abcdefghij"}, {"score": "model", "weight": 0.5}]


def job(choice: Choice, **running: object) -> Job:
    value = msgspec.to_builtins(examples()["tiny-cpu-1"])
    value["choice"], value["devices"] = msgspec.to_builtins(choice), choice.training.world
    value["work"] |= {"batch": 8, "answer": 6, "micro_batch": 2, "decode_micro_batch": 4}
    value["running"] |= {"timeout_s": PATIENCE_S, "steps": 2, "reward": REWARD, "dtype": "float64"}
    value["running"] |= {"actor_optimizer": {"rate": 0.03, "warmup": 0.0}, **running}
    asked = msgspec.convert(value, Experiment)
    return Job(make_plan(asked, "given"), asked.ppo, asked.running, 0, "gloo")


def test_held_prompts_are_scored_alike_in_two_layouts_and_change_no_training(tmp_path: Path):
    """Ten prompts in batches of eight: the second is filled up with prompts that do not count."""
    file = tmp_path / "held.jsonl"
    prompts = [f"{number} and then" for number in range(10)]
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    asked = {"evaluate_every": 1, "evaluation_prompts": str(file)}
    fused = Choice(training=Layout(pipeline=2), generation=Layout(tensor=2), schedule="fused")
    alone, two = launch(job(Choice(), **asked)), launch(job(fused, **asked))
    plain = launch(job(Choice()))
    assert [step.held_reward for step in plain.steps] == [None, None]
    assert alone.digest == plain.digest == two.digest
    for mine, theirs, without in zip(two.steps, alone.steps, plain.steps, strict=True):
        assert theirs.held_reward is not None
        assert mine.held_reward == pytest.approx(theirs.held_reward, rel=1e-9)
        assert theirs.actor_loss == without.actor_loss
        assert theirs.rewards_failed == 0
    first, second = (step.held_reward for step in alone.steps)
    assert first != second


def test_an_evaluation_without_prompts_is_refused():
    with pytest.raises(InputError, match="evaluation_prompts is empty; name a file"):
        Running(evaluate_every=2)


def test_steps_are_lines_of_json_and_those_before_a_checkpoint_stay(tmp_path: Path):
    zeros = dict.fromkeys(
        ("reward", "kl", "actor_loss", "critic_loss", "actor_norm", "critic_norm", "generation_s",
         "switch_s", "inference_s", "training_s", "answer_tokens"), 0.0,
    )  # fmt: skip
    path = tmp_path / "run.jsonl"
    first = StepLines(path)
    for number in range(3):
        first(StepFigures(step=number, **zeros))
    with path.open("a") as written:
        written.write("not whole")
    again = StepLines(path)
    for number in (2, 3):
        again(StepFigures(step=number, **{**zeros, "reward": 1.0}))
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["step"], line["reward"]) for line in found] == [(0, 0), (1, 0), (2, 1), (3, 1)]
