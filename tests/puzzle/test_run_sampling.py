"""The distribution that tokens are drawn from is the one that is noted and learnt."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from common.ranks import run_ranks
from puzzle.inputs.ppo import Running, Sampling
from puzzle.run.data import Bytes, prompts_for
from puzzle.run.ends import end_tokens
from puzzle.run.generate import Special
from puzzle.run.launch import launch
from puzzle.run.layers import entropies
from puzzle.run.metrics import run_metrics, run_summary
from puzzle.run.sample import Drawn, distribution, draw, packed, pick, unpacked
from tests.puzzle.rank_tasks import PATIENCE_S, generated, slice_entropies
from tests.puzzle.test_run_cuts import CUTS, job


def log_softmax(row: np.ndarray) -> np.ndarray:
    """Return log-probabilities of one row of logits, written out; images have no scipy."""
    shifted = row - row.max()
    return shifted - np.log(np.exp(shifted).sum())


def by_hand(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Return log-probabilities of one row's tokens, written out; -inf of those that are cut."""
    scaled = logits.astype(np.float64) / sampling.temperature
    left = set(range(len(scaled)))
    if sampling.top_k:
        left = {i for i in left if (scaled > scaled[i]).sum() < sampling.top_k}
    if sampling.top_p:
        among = sorted(left, key=lambda i: -scaled[i])
        powers = np.exp(scaled[among] - scaled.max())
        reached = np.cumsum(powers / powers.sum())
        left = set(among[: int((reached < sampling.top_p - 1e-12).sum()) + 1])
    chosen = sorted(left)
    found = np.full(len(scaled), -np.inf)
    found[chosen] = log_softmax(scaled[chosen])
    return found


WAYS = [
    Sampling(temperature=0.5),
    Sampling(temperature=2.0, top_k=3),
    Sampling(top_p=0.7),
    Sampling(temperature=0.7, top_k=5, top_p=0.6),
]


@pytest.mark.parametrize("sampling", WAYS)
def test_the_distribution_is_that_of_temperature_then_top_k_then_top_p(sampling: Sampling):
    logits = torch.randn(20, 11, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = distribution(logits, sampling).log_softmax(-1).numpy()
    for row, expected in zip(found, logits.numpy(), strict=True):
        wanted = by_hand(expected, sampling)
        assert np.array_equal(np.isneginf(row), np.isneginf(wanted))
        real = np.isfinite(wanted)
        assert np.abs(row[real] - wanted[real]).max() < 1e-12


@pytest.mark.parametrize("sampling", WAYS)
def test_tokens_come_as_often_as_the_distribution_says(sampling: Sampling):
    logits, count = torch.tensor([2.0, 1.5, 1.0, 0.0, -0.5, -1.0]), 40_000
    numbers, places = torch.arange(count), torch.full((count,), 3)
    tokens = draw(logits.expand(count, 6), sampling, 5, numbers, places)
    shares = torch.bincount(tokens, minlength=6) / count
    wanted = np.exp(by_hand(logits.numpy(), sampling))
    assert np.abs(shares.numpy() - wanted).max() < 0.01
    shaped = distribution(logits.expand(count, 6), sampling)
    assert torch.equal(pick(shaped, 5, numbers, places), tokens)


def test_top_p_of_one_and_no_top_p_leave_every_token():
    logits = torch.randn(3, 50) * 20
    for sampling in (Sampling(top_p=1.0), Sampling()):
        assert not sampling.cuts
        assert torch.equal(distribution(logits, sampling), logits)


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.data())
def test_bits_read_back_from_any_place(truths: list[bool], data: st.DataObject):
    bits = packed(torch.tensor([truths, truths[::-1]]))
    assert bits.shape == (2, -(-len(truths) // 8))
    first = data.draw(st.integers(0, len(truths) - 1))
    count = data.draw(st.integers(1, len(truths) - first))
    found = unpacked(bits, first, count)
    assert found.tolist() == [row[first : first + count] for row in (truths, truths[::-1])]


def test_only_the_answers_tokens_are_cut_when_they_are_learnt():
    logits = torch.randn(1, 4, 10)
    kept = torch.zeros(1, 2, 10, dtype=torch.bool)
    kept[0, 0, [1, 7]] = kept[0, 1, [0, 9]] = True
    drawn = Drawn(2.0, packed(kept))
    for first, count in ((0, 10), (5, 5), (0, 5)):
        found = drawn.shaped(logits[..., first : first + count], first)
        assert torch.equal(found[:, :2], logits[:, :2, first : first + count] / 2)
        assert torch.equal(found[:, 2:] > -torch.inf, kept[..., first : first + count])


CUT = {"temperature": 0.5, "top_k": 40, "top_p": 0.8}


@pytest.mark.parametrize("sampling", [{"temperature": 0.5}, CUT], ids=["temperature", "cuts"])
@pytest.mark.parametrize("cut", [CUTS[0], (1, 2, 1, 1, "merged"), (1, 1, 2, 1, "merged")], ids=str)
def test_what_is_noted_and_learnt_is_what_was_drawn_from(sampling: dict[str, float], cut: tuple):
    """At T = 0.5 a token drawn with 0.98 was noted as 0.84, the softmax of the plain logits."""
    made = job(cut, {}, "float64", sampling=sampling)
    for found in run_ranks(generated, made.plan.world, made, timeout_s=PATIENCE_S):
        begin = made.plan.work.prompt
        checked, plain = 0, list[float]()
        for row, places in enumerate(found.valid[:, begin:].astype(bool)):
            for place in np.flatnonzero(places):
                wanted = by_hand(found.logits[row, place], made.running.sampling)
                token = found.ids[row, begin + place]
                assert found.log_probs[row, place] == pytest.approx(wanted[token], abs=1e-10)
                assert found.learnt[row, place] == pytest.approx(wanted[token], abs=1e-10)
                real = wanted[np.isfinite(wanted)]
                entropy = -(np.exp(real) * real).sum()
                assert found.entropies[row, place] == pytest.approx(entropy, abs=1e-10)
                plain.append(log_softmax(found.logits[row, place])[token] - wanted[token])
                checked += 1
        assert checked > 20
        assert max(map(abs, plain)) > 1e-3
        assert not found.log_probs[~found.valid[:, begin:].astype(bool)].any()
        assert np.isfinite(found.learnt).all()


def test_entropies_and_their_gradients_are_the_same_from_slices():
    logits = np.random.default_rng(0).normal(size=(3, 2, 8)) * 3
    logits[0, 0, 2] = logits[1, 1, 5] = -np.inf
    whole = torch.from_numpy(logits).requires_grad_(True)
    found = entropies(whole, None)
    found.square().sum().backward()
    assert whole.grad is not None
    categorical = torch.distributions.Categorical(logits=torch.from_numpy(logits))
    assert torch.allclose(found, categorical.entropy(), atol=1e-12)
    pieces = run_ranks(slice_entropies, 2, logits, timeout_s=PATIENCE_S)
    for mine, _ in pieces:
        assert np.abs(mine - found.detach().numpy()).max() < 1e-12
    gradients = np.concatenate([gradient for _, gradient in pieces], -1)
    assert np.abs(gradients - whole.grad.numpy()).max() < 1e-12


def test_the_entropys_gradient_is_its_slope():
    logits = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: entropies(x, None), logits)


def test_any_of_several_tokens_ends_an_answer():
    ends = (7, 11, 200)
    made = job(CUTS[0], {}, "float32", sampling={"end_tokens": ends, "temperature": 3.0})
    (found,) = run_ranks(generated, 1, made, timeout_s=PATIENCE_S)
    begin = made.plan.work.prompt
    for row, (ids, valid) in enumerate(zip(found.ids, found.valid, strict=True)):
        answer = ids[begin:][valid[begin:].astype(bool)]
        assert not set(answer[:-1]) & set(ends)
        assert bool(found.ended[row]) == (answer[-1] in ends)
        assert found.ended[row] or len(answer) == made.plan.work.answer
    special = Special(0, ends)
    assert special.ending(torch.tensor([7, 8, 200])).tolist() == [True, False, True]


def test_end_tokens_are_those_given_or_the_tokenizers_and_the_checkpoints(tmp_path: Path):
    config = tmp_path / "generation_config.json"
    running = Running(actor_weights=str(tmp_path))
    assert end_tokens(running, Bytes()) == (2,)
    for told, wanted in (([5, 2, 9], (2, 5, 9)), (5, (2, 5)), (None, (2,))):
        config.write_text(json.dumps({"eos_token_id": told}))
        assert end_tokens(running, Bytes()) == wanted
    given_ones = Running(actor_weights=str(tmp_path), sampling=Sampling(end_tokens=(4,)))
    assert end_tokens(given_ones, Bytes()) == (4,)
    for text, message in (
        ("{", "not a JSON object"),
        ("[]", "not a JSON object"),
        ('{"eos_token_id": "x"}', "expected an id or several; set running.sampling.end_tokens"),
    ):
        config.write_text(text)
        with pytest.raises(InputError, match=message):
            end_tokens(running, Bytes())


def test_overlong_prompts_are_left_out_and_counted_or_keep_their_end(tmp_path: Path):
    path = tmp_path / "p.jsonl"
    texts = ["ab", "abcdefgh", "xyz", "0123456789"]
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    found = prompts_for(Running(prompts=str(path)), Bytes(), 5)
    assert found.ids == [Bytes().encode(text) for text in ("ab", "xyz")]
    assert (found.left_out, found.cut) == (2, 0)
    assert found.told(5) == "2 of 4 prompts have over 5 tokens and are left out"
    found = prompts_for(Running(prompts=str(path), overlong_prompts="keep-end"), Bytes(), 5)
    assert [Bytes().decode(ids) for ids in found.ids] == ["ab", "defgh", "xyz", "56789"]
    assert (found.left_out, found.cut) == (0, 2)
    assert found.told(5) == "of 2 of 4 prompts only the last 5 tokens are asked"
    assert prompts_for(Running(), Bytes(), 64).told(64) == ""


def test_an_overlong_prompt_does_not_end_a_run_and_is_told_in_its_result(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "p.jsonl"
    texts = ["ab", "x" * 100, "xyz"]
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    made = job(CUTS[0], {}, "float32", prompts=str(path))
    found = launch(made)
    assert (found.prompts, found.prompts_left_out) == (2, 1)
    length = made.plan.work.prompt
    assert f"1 of 3 prompts have over {length} tokens and are left out" in caplog.text
    assert run_summary(made.plan, found).endswith("; 1 prompts too long and left out")
    told = {metric.name: metric.value for metric in run_metrics(found)}
    assert told["prompts.left_out"] == 1
