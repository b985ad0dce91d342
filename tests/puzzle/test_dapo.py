"""DAPO's parts: overlong shaping, dynamic sampling, on tensors and on real ranks."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from common.errors import InputError
from puzzle.inputs.examples import examples
from puzzle.inputs.experiment import Choice, Experiment
from puzzle.inputs.layout import Layout
from puzzle.inputs.ppo import Ppo
from puzzle.plan.plans import make_plan
from puzzle.run.dynamic import Batch, filled
from puzzle.run.generate import Answers
from puzzle.run.launch import check_job, launch
from puzzle.run.ppo import token_rewards
from puzzle.run.settings import Job
from tests.puzzle.rank_tasks import PATIENCE_S

pytestmark = pytest.mark.timeout(600)


def punished(tokens: int, most: int, buffer: int) -> float:
    """Return equation 13 of the paper, case by case."""
    if tokens <= most - buffer:
        return 0.0
    return ((most - buffer) - tokens) / buffer if tokens <= most else -1.0


def test_overlong_answers_are_punished_as_the_paper_says():
    prompt, most, buffer = 3, 10, 4
    valid = torch.zeros(most + 1, prompt + most, dtype=torch.long)
    valid[:, :prompt] = 1
    for tokens in range(most + 1):
        valid[tokens, prompt : prompt + tokens] = 1
    ppo = Ppo(overlong_buffer=buffer, overlong_penalty=0.5, kl=0.0)
    flat = torch.zeros(most + 1, prompt + most - 1)
    scores = torch.linspace(-1, 1, most + 1)
    rewards = token_rewards(flat, flat, scores, valid, prompt, ppo).sum(1)
    wanted = [punished(n, most, buffer) for n in range(most + 1)]
    np.testing.assert_allclose(rewards, scores + 0.5 * torch.tensor(wanted), rtol=1e-6)


def drawn(groups: dict[int, list[float]]) -> Batch:
    """Return a batch of these prompts, whose answers are known by prompt and place."""
    scores = torch.tensor([score for found in groups.values() for score in found])
    order = [prompt for prompt, found in groups.items() for _ in found]
    rows = [{"number": prompt} for prompt in order]
    ids = torch.arange(len(order))[:, None] + 100 * torch.tensor(order)[:, None]
    return Batch(Answers(ids, ids, ids, ids), scores, rows)


def test_prompts_that_teach_nothing_are_replaced_by_those_of_further_batches():
    batches = [
        drawn({0: [1.0, 1.0], 1: [0.0, 1.0], 2: [0.0, 0.0]}),
        drawn({3: [1.0, 1.0], 4: [0.5, 0.5], 5: [1.0, 0.0]}),
        drawn({6: [0.0, 2.0], 7: [2.0, 1.0], 8: [2.0, 2.0]}),
    ]
    asked: list[int] = []

    def draw(at: int) -> Batch:
        asked.append(at)
        return batches[at]

    batch, replaced = filled(draw, 3, 2)
    assert ([row["number"] for row in batch.rows], replaced) == ([1, 1, 5, 5, 6, 6], 2)
    assert batch.scores.tolist() == [0.0, 1.0, 1.0, 0.0, 0.0, 2.0]
    assert batch.answers.ids[:, 0].tolist() == [102, 103, 504, 505, 600, 601]
    assert asked == [0, 1, 2]
    batch, replaced = filled(draw, 2, 2)
    assert ([row["number"] for row in batch.rows], replaced) == ([1, 1, 5, 5, 0, 0], 1)
    asked.clear()
    batches[0] = drawn({9: [0.0, 1.0]})
    assert filled(draw, 5, 2)[1] == 0
    assert asked == [0]


def test_dynamic_sampling_is_of_algorithms_that_hold_answers_against_each_other():
    with pytest.raises(InputError, match="ppo learns from answers that are scored alike too"):
        Ppo(dynamic_sampling=2)


REWARD = """
def score(rows):
    return [float(len(row["answer"].encode()) % 2) for row in rows]
"""


def job(layout: Layout, reward: str, most: int, **ppo: object) -> Job:
    value = msgspec.to_builtins(examples()["tiny-cpu-1"])
    choice = Choice(training=layout, generation=layout)
    value["choice"], value["devices"] = msgspec.to_builtins(choice), layout.world
    value["work"] |= {"batch": 8, "answer": 6, "micro_batch": 2, "decode_micro_batch": 4}
    asked = {"algorithm": "grpo", "samples": 2, "dynamic_sampling": most, "overlong_buffer": 3}
    value["ppo"] |= {**asked, "ratio_clip_high": 0.28, "kl_in": "loss", **ppo}
    value["running"] |= {"timeout_s": PATIENCE_S, "steps": 2, "reward": reward, "dtype": "float64"}
    question = msgspec.convert(value, Experiment)
    return Job(make_plan(question, "given"), question.ppo, question.running, 0, "gloo")


def test_dapo_learns_from_more_prompts_and_alike_in_two_layouts(tmp_path: Path):
    file = tmp_path / "odd.py"
    file.write_text(REWARD)
    reward = f"{file}:score"
    plain = launch(job(Layout(), reward, 0))
    alone = launch(job(Layout(), reward, 3))
    two = launch(job(Layout(data=2), reward, 3))
    assert sum(step.replaced for step in alone.steps) > 0
    assert alone.digest == two.digest != plain.digest
    for mine, theirs in zip(two.steps, alone.steps, strict=True):
        assert mine.replaced == theirs.replaced
        assert mine.actor_norm == pytest.approx(theirs.actor_norm, rel=1e-9)
        assert mine.reward == pytest.approx(theirs.reward, rel=1e-9)


def test_a_buffer_longer_than_an_answer_is_refused():
    with pytest.raises(InputError, match="overlong_buffer is 9, expected at most"):
        check_job(job(Layout(), "letters:abc", 0, overlong_buffer=9))
