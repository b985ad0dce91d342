"""PPO's kin without a critic: written-out formulas, any cut, plans that hold no critic."""

from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from common.errors import InputError
from common.ranks import run_ranks
from puzzle import experiments as named
from puzzle.inputs.experiment import Choice, Experiment
from puzzle.inputs.layout import Layout
from puzzle.inputs.ppo import Ppo
from puzzle.plan import answer, planner
from puzzle.plan.check import find_faults
from puzzle.plan.plans import make_plan
from puzzle.plan.schedules import actor_alone
from puzzle.run.adapted import Adapted
from puzzle.run.data import order_of
from puzzle.run.experience import Told, make_experience
from puzzle.run.launch import check_job, launch
from puzzle.run.ppo import actor_loss, clipped_tokens
from puzzle.run.samples import Spread, against_others, whole_batch
from puzzle.run.settings import Job
from puzzle.simulate.predict import predict
from puzzle.simulate.rates import rates_of
from puzzle.simulate.timeline import inference_timeline, training_timeline
from tests.puzzle.peaks import peaks
from tests.puzzle.test_run_cuts import apart, learn
from tests.puzzle.test_run_cuts import job as cut_job

pytestmark = pytest.mark.timeout(600)

SCORES = [1.0, 0.0, 0.5, 0.5, 2.0, 2.0, 2.0, 2.0]
"""Two prompts with four answers each; the second's are all alike."""


def test_advantages_over_the_others_are_those_written_out():
    returns = torch.tensor(SCORES)
    grpo = against_others(returns, Ppo(algorithm="grpo", samples=4))
    first = np.array(SCORES[:4])
    wanted = (first - first.mean()) / (np.std(first, ddof=1) + 1e-4)
    assert grpo[:4].tolist() == pytest.approx(wanted.tolist(), rel=1e-12)
    assert grpo[4:].tolist() == [0.0] * 4
    rloo = against_others(returns, Ppo(algorithm="rloo", samples=4))
    for number, score in enumerate(SCORES[:4]):
        others = [s for i, s in enumerate(SCORES[:4]) if i != number]
        assert float(rloo[number]) == pytest.approx(score - sum(others) / 3, abs=1e-12)


def test_a_batch_comes_together_in_its_order():
    one = Spread([[0, 1, 4, 5], [2, 3, 6, 7]], 0, None)
    alone = Spread([range(3)], 0, None)
    assert whole_batch(torch.tensor([3.0, 1.0, 2.0]), alone).tolist() == [3.0, 1.0, 2.0]
    assert sorted(n for rows in one.rows for n in rows) == list(range(8))


PROMPT, WIDTH = 3, 4


def told(count: int) -> tuple[Told, torch.Tensor]:
    draw = torch.Generator().manual_seed(5)
    wide = (count, PROMPT + WIDTH - 1)
    old, reference = (-torch.rand(wide, generator=draw, dtype=torch.float64) for _ in range(2))
    valid = torch.ones(count, PROMPT + WIDTH, dtype=torch.long)
    for row in range(count):
        valid[row, PROMPT + 1 + row % WIDTH :] = 0
    values = torch.zeros(count, PROMPT + WIDTH, dtype=torch.float64)
    ended = torch.ones(count, dtype=torch.bool)
    return Told(old, reference, values, torch.tensor(SCORES[:count]).double(), ended), valid


def returns_of(what: Told, valid: torch.Tensor, row: int, weight: float) -> list[float]:
    """Return an answer's rewards, token by token, the divergence in them."""
    length = int(valid[row, PROMPT:].sum())
    apart = (what.old - what.reference)[row, PROMPT - 1 : PROMPT - 1 + length]
    rewards = [-weight * float(d) for d in apart]
    rewards[-1] += float(what.scores[row])
    return rewards


def test_the_divergence_is_in_the_return_of_an_answer_where_it_is_in_the_rewards():
    what, valid = told(8)
    ppo = Ppo(algorithm="rloo", samples=2)
    made, _ = make_experience(what, valid, PROMPT, ppo, Adapted(0.3), Spread([range(8)], 0, None))
    sums = [sum(returns_of(what, valid, row, 0.3)) for row in range(8)]
    for row in range(8):
        length = int(valid[row, PROMPT:].sum())
        wanted = sums[row] - sums[row ^ 1]
        assert made.advantages[row, :length].tolist() == pytest.approx([wanted] * length)
        assert made.advantages[row, length:].tolist() == [0.0] * (WIDTH - length)
    assert not made.values.any()


def test_reinforce_plus_plus_holds_discounted_returns_against_the_whole_batch():
    what, valid = told(8)
    ppo = Ppo(algorithm="reinforce++", gamma=0.9)
    made, _ = make_experience(what, valid, PROMPT, ppo, Adapted(0.3), Spread([range(8)], 0, None))
    every: list[float] = []
    for row in range(8):
        rewards = returns_of(what, valid, row, 0.3)
        every += [
            sum(0.9 ** (k - j) * rewards[k] for k in range(j, len(rewards)))
            for j in range(len(rewards))
        ]
    wanted = (np.array(every) - np.mean(every)) / np.std(every)
    found = made.advantages[made.mask.bool()].numpy()
    assert found == pytest.approx(wanted, abs=1e-6)


def test_the_ratio_of_a_sequence_is_the_geometric_mean_of_its_tokens():
    draw = torch.Generator().manual_seed(2)
    new, old = (torch.randn(3, 5, generator=draw, dtype=torch.float64) * 0.3 for _ in range(2))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]]).double()
    advantages = torch.tensor([[1.0], [-2.0], [1.0]]).double().expand(3, 5)
    ppo = Ppo(ratio="sequence", ratio_clip=0.01, ratio_clip_high=0.02, loss_mean="sequence-mean")
    wanted, outside = [], 0
    for row, length in ((0, 5), (1, 2)):
        ratio = float(np.exp(float((new - old)[row, :length].mean())))
        a = float(advantages[row, 0])
        clipped = min(max(ratio, 0.99), 1.02)
        wanted.append(max(-a * ratio, -a * clipped))
        outside += length * (ratio != clipped)
    assert float(actor_loss(new, old, advantages, mask, ppo)) == pytest.approx(sum(wanted) / 2)
    assert float(clipped_tokens(new, old, mask, ppo)) == outside


def test_clip_higher_moves_the_upper_bound_alone():
    new = torch.log(torch.tensor([[1.25, 0.75]])).double()
    old, mask = torch.zeros_like(new), torch.ones_like(new)
    for sign, wanted in ((1.0, -(1.25 + 0.75) / 2), (-1.0, (1.25 + 0.8) / 2)):
        advantages = torch.full_like(new, sign)
        ppo = Ppo(ratio_clip=0.2, ratio_clip_high=0.28)
        assert float(actor_loss(new, old, advantages, mask, ppo)) == pytest.approx(wanted)
    assert float(clipped_tokens(new, old, mask, Ppo(ratio_clip_high=0.28))) == 1.0
    assert float(clipped_tokens(new, old, mask, Ppo())) == 2.0


def test_every_prompt_is_asked_as_often_as_there_are_samples():
    found = order_of(10, 12, 1, 3, 4)
    assert found == [n for n in order_of(10, 3, 1, 3) for _ in range(4)]
    whole = [n for step in range(5) for n in order_of(10, 4, step, 3, 2)[::2]]
    assert sorted(whole) == list(range(10))


GRPO: dict[str, Any] = {
    "algorithm": "grpo", "samples": 4, "kl_in": "loss", "kl_estimator": "k3",
    "loss_mean": "sequence-mean",
}  # fmt: skip


def test_a_group_that_replicas_share_has_one_gradient():
    """Four answers to a prompt on one rank, on two stages, and two on each of two replicas."""
    cuts = ((4, 1, 1, 1, "merged"), (2, 2, 1, 1, "sequential"), (1, 1, 1, 2, "merged"))
    first, *others = learn([cut_job(cut, {**GRPO, "mini_batch": 4}, "float64") for cut in cuts])
    assert set(first.gradients[0]) == {"actor"}
    for other in others:
        assert other.digest == first.digest
        for number, gradients in enumerate(other.gradients):
            assert apart(gradients["actor"], first.gradients[number]["actor"]) < 1e-10


@pytest.mark.parametrize(("stages", "batches"), [(1, 1), (3, 5), (4, 2)])
def test_the_actors_own_schedule_is_right(stages: int, batches: int):
    assert find_faults(actor_alone(stages, batches)) == ()


def asked(layout: Layout, generation: Layout, **ppo: Any) -> Experiment:
    base = named()["learn-cpu-1"]
    value = msgspec.to_builtins(base.ppo) | GRPO | ppo
    return msgspec.structs.replace(
        base,
        ppo=msgspec.convert(value, Ppo),
        devices=layout.world,
        choice=Choice(training=layout, generation=generation),
        running=msgspec.structs.replace(base.running, steps=2),
    )


def test_a_plan_without_a_critic_holds_none_and_takes_less():
    layout = Layout(pipeline=2, data=2)
    without, ppo = asked(layout, layout), asked(layout, layout, algorithm="ppo", samples=1)
    plans = [make_plan(one, "given") for one in (without, ppo)]
    mine, theirs = (predict(plan, ppo.machines) for plan in plans)
    assert mine.times.training < theirs.times.training
    assert mine.times.inference < theirs.times.inference
    assert mine.memory.states < theirs.memory.states
    on = rates_of(plans[0], ppo.machines)
    assert training_timeline(plans[0], on).schedule.models == ("actor",)
    assert inference_timeline(plans[0], on).schedule.models == ("reference", "reward")
    found = planner.search(without)
    assert found.best[0].predicted.times.step <= mine.times.step
    assert all(one.plan.choice.schedule != "fused" for one in found.best)
    assert answer.question(without, 0) != answer.question(ppo, 0)


@pytest.mark.slow
def test_what_ranks_have_alive_without_a_critic_is_what_was_predicted():
    layout = Layout(pipeline=2)
    big = msgspec.structs.replace(
        asked(layout, Layout(tensor=2)),
        actor=msgspec.structs.replace(named()["learn-cpu-1"].actor, hidden=256, ffn=512),
        running=msgspec.structs.replace(named()["learn-cpu-1"].running, reward="model", steps=3),
    )
    plan = make_plan(big, "given")
    made = run_ranks(peaks, 2, [Job(plan, big.ppo, big.running, 0, "gloo")], eager=False)
    memory = predict(plan, big.machines).memory
    for stage, wanted in (
        ("generation", memory.generation),
        ("training", max(memory.training, memory.update)),
    ):
        assert wanted == pytest.approx(max(one[0][stage] for one in made), rel=0.1), stage


@pytest.mark.slow
def test_grpo_raises_a_reward_alike_in_three_layouts():
    curves: list[list[float]] = []
    for layout, generation in (
        (Layout(), Layout()),
        (Layout(pipeline=2), Layout(tensor=2)),
        (Layout(data=2), Layout(pipeline=2)),
    ):
        experiment = asked(layout, generation, kl=0.02)
        running = msgspec.structs.replace(experiment.running, steps=40)
        result = launch(Job(make_plan(experiment, "given"), experiment.ppo, running, 0, "gloo"))
        curves.append([step.reward for step in result.steps])
    assert np.mean(curves[0][-4:]) > np.mean(curves[0][:4]) + 0.2
    for other in curves[1:]:
        assert np.mean(other[-4:]) == pytest.approx(np.mean(curves[0][-4:]), abs=0.1)


def test_what_an_algorithm_has_no_use_for_is_refused():
    for change, message in (
        ({"algorithm": "grpo"}, "samples is 1, expected 2 or more for grpo"),
        ({"algorithm": "rloo", "samples": 4, "missing_end": "bootstrap"}, "rloo has no critic"),
        ({"algorithm": "reinforce++", "normalise_values": True}, "has no critic"),
        ({"ratio_clip_high": -1.0}, "ratio_clip_high is -1.0"),
    ):
        with pytest.raises(InputError, match=message):
            Ppo(**change)
    fused = msgspec.structs.replace(
        asked(Layout(pipeline=2), Layout(pipeline=2)),
        choice=Choice(training=Layout(pipeline=2), generation=Layout(pipeline=2), schedule="fused"),
    )
    with pytest.raises(InputError, match="nothing to fuse"):
        make_plan(fused, "given")
    good = asked(Layout(), Layout())
    plan = make_plan(good, "given")
    odd = msgspec.structs.replace(good.ppo, samples=3)
    with pytest.raises(InputError, match="samples is 3, expected a divisor of"):
        check_job(Job(plan, odd, good.running, 0, "gloo"))
    with pytest.raises(InputError, match="the plan is without a critic; plan anew"):
        check_job(Job(plan, Ppo(), good.running, 0, "gloo"))
