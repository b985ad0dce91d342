"""Means, moments, divergences and rules of PPO against the same written out another way."""

import math
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from common.ranks import run_ranks
from puzzle.inputs.ppo import Ppo, Sampling
from puzzle.run.adapted import Adapted, Moments, adapted_weight
from puzzle.run.experience import Told, make_experience, normalised
from puzzle.run.launch import check_job
from puzzle.run.means import Totals, replica_rows, share_of_mean, totals_of
from puzzle.run.moments import moments_of, whitened
from puzzle.run.ppo import (
    actor_loss,
    clipped_tokens,
    critic_loss,
    divergence,
    divergence_loss,
    final_scores,
    token_rewards,
)
from puzzle.run.samples import Spread
from tests.puzzle.rank_tasks import PATIENCE_S
from tests.puzzle.test_run_cuts import CUTS, job

MEANS = ("token-mean", "sequence-mean", "sequence-mean-token-sum")


def answers_of(lengths: list[int], width: int = 6) -> torch.Tensor:
    return (torch.arange(width) < torch.tensor(lengths)[:, None]).double()


def by_hand(values: Any, lengths: list[int], how: str) -> float:
    rows = [[float(v) for v in row[:n]] for row, n in zip(values, lengths, strict=True) if n]
    if how == "token-mean":
        return sum(map(sum, rows)) / sum(map(len, rows))
    if how == "sequence-mean":
        return sum(sum(row) / len(row) for row in rows) / len(rows)
    return sum(map(sum, rows)) / len(rows)


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=8).filter(any),
    st.sampled_from(MEANS),
    st.data(),
)
def test_the_shares_of_any_parts_add_up_to_the_mean(lengths: list[int], how: Any, data: Any):
    values, mask = torch.randn(len(lengths), 6, dtype=torch.float64), answers_of(lengths)
    wanted = by_hand(values, lengths, how)
    assert float(share_of_mean(values, mask, how)) == pytest.approx(wanted, abs=1e-12)
    totals = totals_of([mask])[0]
    assert totals == (sum(lengths), sum(map(bool, lengths)))
    at = sorted(data.draw(st.sets(st.integers(1, len(lengths)))) | {0, len(lengths)})
    parts = [slice(a, b) for a, b in pairwise(at)]
    shares = [share_of_mean(values[p], mask[p], how, totals) for p in parts]
    assert float(sum(shares)) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("cuts", [[2], [1, 1]])
def test_two_answers_of_one_and_four_tokens_have_one_loss_whatever_the_cut(cuts: list[int]):
    """Loss and gradient are 0.6; the mean of two micro-batches' means was 0."""
    mask = answers_of([1, 4], 4)
    advantages = torch.tensor([[1.0], [-1.0]], dtype=torch.float64).expand(2, 4)
    totals, shift = totals_of([mask])[0], torch.zeros(1, dtype=torch.float64, requires_grad=True)
    old = torch.zeros(2, 4, dtype=torch.float64)
    losses = [
        actor_loss(o + shift, o, a, m, Ppo(), totals)
        for o, a, m in zip(old.split(cuts), advantages.split(cuts), mask.split(cuts), strict=True)
    ]
    loss = torch.stack(losses).sum()
    loss.backward()
    assert loss.item() == pytest.approx(0.6, abs=1e-12)
    assert shift.grad is not None
    assert shift.grad.item() == pytest.approx(0.6, abs=1e-12)


def test_a_batch_without_a_learnt_token_has_loss_0():
    mask = torch.zeros(2, 3)
    assert totals_of([mask]) == [Totals(1, 1)]
    for how in MEANS:
        assert float(share_of_mean(torch.ones(2, 3), mask, how)) == 0.0


@pytest.mark.parametrize("how", MEANS)
def test_every_loss_is_taken_over_the_same_mean(how: Any):
    lengths = [3, 0, 6, 1]
    rng = torch.Generator().manual_seed(0)
    new, old, other, goal = torch.randn(4, 4, 6, generator=rng, dtype=torch.float64)
    mask, ppo = answers_of(lengths), Ppo(loss_mean=how, kl_estimator="k3")
    new_, old_, other_, goal_ = (x.numpy() for x in (new, old, other, goal))
    ratio = np.exp(new_ - old_)
    worst = np.maximum(-goal_ * ratio, -goal_ * np.clip(ratio, 0.8, 1.2))
    found = actor_loss(new, old, goal, mask, ppo)
    assert float(found) == pytest.approx(by_hand(worst, lengths, how), abs=1e-12)
    near = np.clip(new_, old_ - 0.2, old_ + 0.2)
    errors = np.maximum((new_ - goal_) ** 2, (near - goal_) ** 2)
    found = critic_loss(new, old, goal, mask, ppo)
    assert float(found) == pytest.approx(by_hand(errors, lengths, how) / 2, abs=1e-12)
    k3 = np.exp(other_ - new_) - 1 - (other_ - new_)
    found = divergence_loss(new, other, mask, ppo)
    assert float(found) == pytest.approx(by_hand(k3, lengths, how), abs=1e-12)
    outside = [abs(r - 1) > 0.2 for row, n in zip(ratio, lengths, strict=True) for r in row[:n]]
    assert float(clipped_tokens(new, old, mask, ppo)) == sum(outside)


def test_estimators_of_the_divergence_have_their_expectations():
    """Under the actor k1 and k3 are the divergence on average; k2 half the mean square."""
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(6)), rng.dirichlet(np.ones(6))
    apart = torch.from_numpy(np.log(p) - np.log(q))
    exact = float((p * np.log(p / q)).sum())
    for estimator in ("k1", "k3"):
        mean = float((torch.from_numpy(p) * divergence(apart, estimator)).sum())
        assert mean == pytest.approx(exact, abs=1e-12)
    assert (divergence(apart, "k3") >= 0).all()
    assert divergence(apart, "k2").tolist() == pytest.approx((apart.numpy() ** 2 / 2).tolist())
    tiny = torch.tensor([1e-5], dtype=torch.float32)
    assert float(divergence(tiny, "k3")) == pytest.approx(5e-11, rel=0.05, abs=0)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.integers(0, 30))
def test_joined_moments_are_those_of_all_numbers(numbers: list[float], at: int):
    parts = [Moments(), Moments()]
    for i, part in enumerate((numbers[:at], numbers[at:])):
        if part:
            values = torch.tensor(part, dtype=torch.float64)
            parts[i] = moments_of(values, torch.ones_like(values), None)
    both = parts[0].joined(parts[1])
    assert both.count == len(numbers)
    assert both.mean == pytest.approx(np.mean(numbers), rel=1e-9, abs=1e-9)
    assert both.variance == pytest.approx(np.var(numbers), rel=1e-9, abs=1e-5)


def whiten_part(rank: int, report: object, values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    parts = [torch.from_numpy(x).chunk(dist.get_world_size())[rank] for x in (values, mask)]
    return whitened(*parts, dist.group.WORLD).numpy()


@pytest.mark.parametrize("mean", [0.0, 1e4, -3e6])
def test_whitening_is_exact_where_the_mean_is_large_beside_the_deviation(mean: float):
    """The mean square less the squared mean, in float32, lost all digits from 1e4 on."""
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(6, 5)) + mean).astype(np.float32)
    mask = (np.arange(5) < np.array([5, 0, 3, 1, 4, 2])[:, None]).astype(np.float32)
    chosen = values.astype(np.float64)[mask > 0]
    wanted = (values.astype(np.float64) - chosen.mean()) / chosen.std() * mask
    assert np.abs(whitened(torch.from_numpy(values), torch.from_numpy(mask), None).numpy()
                  - wanted).max() < 1e-6  # fmt: skip
    found = np.concatenate(run_ranks(whiten_part, 2, values, mask, timeout_s=PATIENCE_S))
    assert np.abs(found - wanted).max() < 1e-6


@pytest.mark.parametrize(
    ("observed", "factor"), [(6.0, 1.0), (6.6, 1.008), (60.0, 1.016), (0, 0.984)]
)
def test_the_weight_follows_the_divergence_as_ziegler_et_al_have_it(observed: float, factor: float):
    """Section 2.2: w (1 + clip(KL / target - 1, 0.2) n / horizon), here 64 / 800 answers."""
    ppo = Ppo(kl_target=6.0, kl_horizon=800.0)
    assert adapted_weight(0.1, observed, 64, ppo) == pytest.approx(0.1 * factor, rel=1e-12)
    assert adapted_weight(0.1, observed, 64, Ppo()) == 0.1


SCORES = torch.tensor([4.0, -9.0, 1.0])
ENDED = torch.tensor([True, False, False])


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("none", [4, -5, 1]),
        ("penalty", [4, -7, -1]),
        ("mask", [4, -5, 1]),
        ("bootstrap", [4, 0, 0]),
    ],
)
def test_an_answer_without_an_end_is_scored_by_its_rule(rule: Any, wanted: list[float]):
    ppo = Ppo(missing_end=rule, missing_end_penalty=2.0)
    assert final_scores(SCORES, ENDED, ppo).tolist() == wanted


PROMPT, WIDTH = 2, 3


def told(seed: int = 0) -> tuple[Told, torch.Tensor]:
    """Return four answers of 1 to 3 tokens; the last two fill the width, the last has no end."""
    rng = torch.Generator().manual_seed(seed)
    old, reference = torch.randn(2, 4, PROMPT + WIDTH - 1, generator=rng, dtype=torch.float64)
    values = torch.randn(4, PROMPT + WIDTH, generator=rng, dtype=torch.float64)
    scores = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)
    valid = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]])
    return Told(old, reference, values, scores, torch.tensor([True, True, True, False])), valid


ALONE = Spread([range(4)], 0, None)
"""Four answers of one replica."""


def expected(
    what: Told, row: int, length: int, ppo: Ppo, weight: float, values: Any
) -> list[float]:
    """Return one answer's advantages by the sum of discounted errors, token by token."""
    rewards = [
        -weight * float(what.old[row, PROMPT - 1 + j] - what.reference[row, PROMPT - 1 + j])
        for j in range(length)
    ]
    cut_off = not bool(what.ended[row])
    bootstrap = ppo.missing_end == "bootstrap" and cut_off
    if not bootstrap:
        rewards[-1] += float(what.scores[row].clamp(-ppo.score_clip, ppo.score_clip))
    v = [float(values[row, PROMPT - 1 + j]) for j in range(length + 1)]
    v[length] = v[length] if bootstrap else 0.0
    deltas = [rewards[j] + ppo.gamma * v[j + 1] - v[j] for j in range(length)]
    return [
        sum((ppo.gamma * ppo.lam) ** (k - j) * deltas[k] for k in range(j, length))
        for j in range(length)
    ]


@pytest.mark.parametrize("rule", ["none", "mask", "bootstrap"])
def test_advantages_of_ended_and_cut_off_answers_are_those_written_out(rule: Any):
    what, valid = told()
    ppo = Ppo(missing_end=rule, gamma=0.9, lam=0.8)
    made, _ = make_experience(what, valid, PROMPT, ppo, Adapted(0.3), ALONE)
    for row, length in enumerate((1, 2, 3, 3)):
        wanted = expected(what, row, length, ppo, 0.3, what.values)
        assert made.advantages[row, :length].tolist() == pytest.approx(wanted, abs=1e-12)
        mask = [1.0] * length + [0.0] * (WIDTH - length)
        assert made.mask[row].tolist() == ([0.0] * 3 if row == 3 and rule == "mask" else mask)
    assert made.cut_off.tolist() == [0, 0, 0, 1]
    assert made.tokens.tolist() == [1, 2, 3, 3]


def test_normalised_values_are_given_and_learnt_in_units_of_the_returns_before():
    what, valid = told()
    ppo = Ppo(normalise_values=True)
    so_far = Moments(10, 2.0, 90.0)  # deviation 3
    adapted = Adapted(0.1, returns=so_far)
    made, after = make_experience(what, valid, PROMPT, ppo, adapted, ALONE)
    values = 2.0 + 3.0 * what.values
    returns: list[float] = []
    for row, length in enumerate((1, 2, 3, 3)):
        wanted = expected(what, row, length, ppo, 0.1, values)
        assert made.advantages[row, :length].tolist() == pytest.approx(wanted, abs=1e-12)
        whole = [a + float(values[row, PROMPT - 1 + j]) for j, a in enumerate(wanted)]
        units = [(r - 2.0) / 3.0 for r in whole]
        assert made.returns[row, :length].tolist() == pytest.approx(units, abs=1e-12)
        returns += whole
    assert torch.equal(made.values, what.values[:, PROMPT - 1 : -1])
    every = Moments(10, 2.0, 90.0).joined(
        Moments(len(returns), float(np.mean(returns)), float(np.var(returns)) * len(returns))
    )
    assert msgspec.structs.astuple(after.returns) == pytest.approx(msgspec.structs.astuple(every))
    plain, kept = make_experience(what, valid, PROMPT, Ppo(), adapted, ALONE)
    assert kept.returns == so_far
    assert not torch.allclose(plain.advantages, made.advantages)


def test_normalised_rewards_are_over_the_deviation_of_all_so_far():
    first, second = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([0.0, 5.0])
    every = np.array([1.0, 2.0, 6.0, 0.0, 5.0])
    for how, mean in (("scale", 0.0), ("whiten", every.mean())):
        ppo = Ppo(normalise_rewards=how)  # type: ignore[arg-type]
        _, so_far = normalised(first, Moments(), ppo, None)
        found, _ = normalised(second, so_far, ppo, None)
        wanted = (second.numpy() - mean) / every.std()
        assert found.tolist() == pytest.approx(wanted.tolist(), rel=1e-6)
    same, moments = normalised(
        torch.full((3,), 4.0), Moments(), Ppo(normalise_rewards="scale"), None
    )
    assert same.tolist() == [4.0] * 3  # no deviation to divide by yet
    assert moments.deviation == 1.0
    assert normalised(first, Moments(), Ppo(), None) == (first, Moments())


def test_the_divergence_is_in_the_rewards_or_in_the_loss():
    log_probs, reference = torch.tensor([[0.0, -1.0, -2.0]]), torch.tensor([[0.0, -1.5, -1.0]])
    mask, scores = torch.ones(1, 4, dtype=torch.long), torch.tensor([2.0])
    for estimator, kl in (("k1", [0.5, -1.0]), ("k2", [0.125, 0.5]),
                          ("k3", [math.exp(-0.5) - 0.5, math.e - 2])):  # fmt: skip
        ppo = Ppo(kl=0.2, kl_estimator=estimator)  # type: ignore[arg-type]
        found = token_rewards(log_probs, reference, scores, mask, 2, ppo)
        wanted = [-0.2 * kl[0], 2.0 - 0.2 * kl[1]]
        assert found[0, 1:].tolist() == pytest.approx(wanted, abs=1e-6)
    in_loss = token_rewards(log_probs, reference, scores, mask, 2, Ppo(kl_in="loss"))
    assert in_loss[0, 1:].tolist() == [0.0, 2.0]
    weighted = token_rewards(log_probs, reference, scores, mask, 2, Ppo(), kl_weight=1.0)
    assert weighted[0, 1:].tolist() == pytest.approx([-0.5, 3.0])


@pytest.mark.parametrize(
    ("batch", "mini", "replicas"), [(8, 8, 2), (8, 4, 2), (24, 12, 3), (6, 6, 1)]
)
def test_replicas_have_each_answer_once_and_each_mini_batch_is_the_same_in_every_layout(
    batch: int, mini: int, replicas: int
):
    rows = [replica_rows(batch, mini, replicas, replica) for replica in range(replicas)]
    assert sorted(row for mine in rows for row in mine) == list(range(batch))
    part = mini // replicas
    for number in range(batch // mini):
        here = [row for mine in rows for row in mine[number * part : (number + 1) * part]]
        assert sorted(here) == list(range(number * mini, (number + 1) * mini))


@pytest.mark.parametrize(
    ("ppo", "sampling", "message"),
    [
        ({"mini_batch": 3}, {}, r"ppo.mini_batch is 3, expected a divisor of work.batch \(8\)"),
        ({"mini_batch": 2}, {}, r"a multiple of choice.training.data x work.micro_batch \(2 x 4\)"),
        ({"missing_end": "mask"}, {"stop_at_end": False}, "stop_at_end is false, so no answer"),
        ({}, {"end_tokens": (260,)}, r"260 is outside the actor's vocabulary \(260\); set"),
    ],
)
def test_what_cannot_be_learnt_is_refused_in_one_line(ppo: Any, sampling: Any, message: str):
    made = job(CUTS[4], ppo, "float32", sampling=sampling)
    with pytest.raises(InputError, match=message) as error:
        check_job(made)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ppo(mini_batch=-1), "ppo.mini_batch is -1, expected 0 or more"),
        (lambda: Ppo(kl_horizon=0.0), "ppo.kl_horizon is 0.0, expected above 0"),
        (lambda: Ppo(entropy=math.nan), "ppo.entropy is nan, expected 0 or more"),
        (lambda: Ppo(kl_target=-1.0), "ppo.kl_target is -1.0, expected 0 or more"),
        (lambda: Sampling(end_tokens=(-1,)), r"sampling.end_tokens are \[-1\], expected 0 or more"),
    ],
)
def test_numbers_out_of_range_are_refused(make: Any, message: str):
    with pytest.raises(InputError, match=message):
        make()
