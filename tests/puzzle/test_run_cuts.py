"""One gradient whatever the cut: micro-batches, replicas, stages, slices and schedules."""

from functools import cache

import msgspec
import numpy as np
import pytest

from common.case import read_toml
from common.ranks import run_ranks
from puzzle import experiments as named
from puzzle.inputs.experiment import Choice, Experiment
from puzzle.inputs.layout import Layout
from puzzle.plan.plans import make_plan
from puzzle.run.settings import Job
from tests.puzzle.conftest import GOLDEN
from tests.puzzle.rank_tasks import PATIENCE_S, Learnt, learn_jobs

pytestmark = [pytest.mark.timeout(900)]

CUTS: tuple[tuple[int, int, int, int, str], ...] = (
    (8, 1, 1, 1, "sequential"),
    (1, 1, 1, 1, "merged"),
    (2, 1, 1, 1, "fused"),
    (4, 1, 1, 1, "sequential"),
    (4, 1, 1, 2, "merged"),
    (1, 1, 1, 2, "sequential"),
    (2, 2, 1, 1, "merged"),
    (1, 2, 1, 1, "fused"),
    (4, 1, 2, 1, "merged"),
    (2, 2, 2, 1, "fused"),
    (1, 2, 1, 2, "merged"),
    (2, 1, 2, 2, "sequential"),
    (1, 1, 1, 4, "merged"),
    (2, 4, 1, 1, "merged"),
    (8, 1, 4, 1, "merged"),
)
"""Micro-batch, P, T, D, schedule; the first is the yardstick of the others."""

ENDS = tuple(range(2, 32))
"""So many tokens end an answer that lengths differ, and some answers have none."""

VARIANTS: dict[str, dict[str, object]] = {
    "as it is": {},
    "sequence-mean": {"loss_mean": "sequence-mean", "missing_end": "mask"},
    "sequence-mean-token-sum": {"loss_mean": "sequence-mean-token-sum", "whiten": True},
    "all terms": {
        "missing_end": "mask", "entropy": 0.02, "kl_in": "loss", "kl_estimator": "k3",
        "whiten": True, "normalise_rewards": "whiten", "normalise_values": True,
        "kl_target": 0.1, "old_log_probs": "training",
    },
    "grpo": {
        "algorithm": "grpo", "samples": 4, "kl_in": "loss", "kl_estimator": "k3",
        "loss_mean": "sequence-mean", "missing_end": "mask",
    },
    "rloo": {"algorithm": "rloo", "samples": 2, "missing_end": "penalty"},
    "reinforce++": {"algorithm": "reinforce++", "ratio_clip_high": 0.28, "entropy": 0.01},
    "gspo": {
        "algorithm": "grpo", "samples": 2, "ratio": "sequence", "loss_mean": "sequence-mean",
        "normalise_rewards": "scale",
    },
    "bootstrap": {"missing_end": "bootstrap", "kl_estimator": "k2", "normalise_values": True},
}  # fmt: skip


def job(cut: tuple[int, int, int, int, str], ppo: dict[str, object], dtype: str, **more: object):
    micro, p, t, d, schedule = cut
    experiment = named()["tiny-cpu-1"]
    value = msgspec.to_builtins(experiment)
    layout = Layout(pipeline=p, tensor=t, data=d)
    choice = Choice(training=layout, generation=layout, schedule=schedule)
    value["choice"], value["devices"] = msgspec.to_builtins(choice), layout.world
    body = {"layers": 4, "hidden": 32, "heads": 4, "ffn": 48, "vocabulary": 260}
    value["actor"] = value["critic"] = body
    value["work"] |= {"batch": 8, "answer": 10, "micro_batch": micro, "inference_tokens": 84}
    value["work"] |= {"prefill_micro_batch": 1, "decode_micro_batch": 2}
    value["ppo"] |= ppo
    sampling = {"end_tokens": ENDS, **more.pop("sampling", {})}
    value["running"] |= {"timeout_s": PATIENCE_S, "dtype": dtype, "steps": 1}
    value["running"] |= {"sampling": sampling, **more}
    asked = msgspec.convert(value, Experiment)
    return Job(make_plan(asked, "given"), asked.ppo, asked.running, 0, "gloo")


def learn(made: list[Job]) -> list[Learnt]:
    """Run jobs on as many ranks as each needs; keep their order."""
    found: dict[int, Learnt] = {}
    for world in sorted({one.plan.world for one in made}):
        numbers = [n for n, one in enumerate(made) if one.plan.world == world]
        results = run_ranks(learn_jobs, world, [made[n] for n in numbers], timeout_s=PATIENCE_S)[0]
        found |= dict(zip(numbers, results, strict=True))
    return [found[n] for n in range(len(made))]


def cuts_of(name: str) -> list[tuple[int, int, int, int, str]]:
    """Return the cuts of a variant: without a critic there is nothing to fuse."""
    alone = "algorithm" in VARIANTS[name]
    return [cut for cut in CUTS if not (alone and cut[-1] == "fused")]


def apart(mine: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(mine - theirs) / np.linalg.norm(theirs))


BARS = [
    *((name, "float64", 1e-10) for name in VARIANTS),
    *((name, "float32", 1e-6) for name in ("as it is", "bootstrap")),
]
"""Variant, type and how far gradients may be apart: all in the sharper, two in the usual type."""


@cache
def learnt(dtype: str) -> dict[str, list[Learnt]]:
    tried = {name: VARIANTS[name] for name, kind, _ in BARS if kind == dtype}
    made = {name: [job(c, ppo, dtype) for c in cuts_of(name)] for name, ppo in tried.items()}
    every = iter(learn([one for jobs in made.values() for one in jobs]))
    return {name: [next(every) for _ in jobs] for name, jobs in made.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dtype", "bar"), BARS)
def test_the_gradient_is_one_whatever_the_cut(name: str, dtype: str, bar: float):
    first, *others = learnt(dtype)[name]
    assert 0 < first.steps[0].cut_off < 1  # where such answers are masked, some have no tokens
    assert 1 < first.steps[0].answer_tokens < 9
    for cut, other in zip(cuts_of(name)[1:], others, strict=True):
        assert other.digest == first.digest
        for model, gradient in first.gradients[0].items():
            assert np.linalg.norm(gradient) > 0
            assert apart(other.gradients[0][model], gradient) < bar, (cut, model)
        for field in ("actor_loss", "critic_loss", "kl", "entropy", "clipped", "reward"):
            mine, theirs = getattr(other.steps[0], field), getattr(first.steps[0], field)
            if theirs is None:
                assert mine is None
                continue
            assert mine == pytest.approx(theirs, rel=1e2 * bar, abs=bar), (cut, field)


def test_three_cuts_of_the_same_answers_have_one_gradient_and_loss():
    """Whose actor's norms were 0.0423, 0.1067 and 0.0472 when means of micro-batches were taken."""
    names = ("P1s_mb8", "P1s_mb1", "P1s_dp2")
    asked = [read_toml(GOLDEN / "cuts" / f"{name}.toml", Experiment) for name in names]
    made = [Job(make_plan(one, "given"), one.ppo, one.running, 0, "gloo") for one in asked]
    first, *others = learn(made)
    for other in others:
        assert other.digest == first.digest
        for model in ("actor", "critic"):
            assert apart(other.gradients[0][model], first.gradients[0][model]) < 1e-6
        for field in ("actor_loss", "critic_loss", "actor_norm", "critic_norm"):
            mine, theirs = getattr(other.steps[0], field), getattr(first.steps[0], field)
            assert mine == pytest.approx(theirs, rel=1e-5)


@pytest.mark.slow
def test_mini_batches_and_epochs_have_the_same_updates_whatever_the_cut():
    """Two passes over two mini-batches of two steps: eight updates of each model."""
    ppo = {"mini_batch": 4, "epochs": 2, "entropy": 0.01, "kl_target": 0.05, "kl_horizon": 50.0,
           "normalise_rewards": "scale", "normalise_values": True}  # fmt: skip
    cuts = [cut for cut in CUTS if cut[0] * cut[3] <= 4]
    assert len(cuts) == 12
    fast = {"actor_optimizer": {"rate": 0.02, "warmup": 0.0}, "steps": 2}
    first, *others = learn([job(cut, ppo, "float64", **fast) for cut in cuts])
    assert len(first.gradients) == 8
    assert first.steps[1].kl_weight != first.steps[0].kl_weight
    assert first.steps[1].clipped > 0
    for cut, other in zip(cuts[1:], others, strict=True):
        assert other.digest == first.digest
        assert other.steps[1].kl_weight == pytest.approx(first.steps[1].kl_weight, rel=1e-12)
        for number, gradients in enumerate(other.gradients):
            for model, gradient in gradients.items():
                assert apart(gradient, first.gradients[number][model]) < 1e-10, (cut, number, model)


@pytest.mark.slow
def test_the_sampler_and_the_learner_have_one_distribution_in_every_cut():
    """With temperature and cuts, the ratio of the first update is 1 by either road, and the
    gradient one."""
    sampling = {"temperature": 0.5, "top_k": 40, "top_p": 0.8}
    made = [
        job(cut, {"old_log_probs": way, "entropy": 0.01}, "float64", sampling=sampling)
        for cut in CUTS
        for way in ("generation", "training")
    ]
    first, *others = learn(made)
    for one, other in zip(made[1:], others, strict=True):
        assert other.digest == first.digest
        for model in ("actor", "critic"):
            gradients = other.gradients[0][model], first.gradients[0][model]
            assert apart(*gradients) < 1e-10, (one.plan.choice, one.ppo.old_log_probs)
