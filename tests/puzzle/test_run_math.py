"""PPO's formulas, sampling, prompts and files, in one process."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from puzzle.inputs.ppo import Optimizer, Ppo, Running, Sampling
from puzzle.run.data import Bytes, batch_of, fitting, load_tokenizer, order_of
from puzzle.run.layers import log_probs
from puzzle.run.ppo import actor_loss, advantages_of, critic_loss, token_rewards
from puzzle.run.rewards import Rewards, check_rewards
from puzzle.run.rows import load_rows
from puzzle.run.sample import draw, gumbel
from puzzle.run.update import learning_rate

OLD = torch.tensor([[-1, -0.5, -2, -0.3, -1.2]])
REFERENCE = torch.tensor([[-1.1, -0.7, -1.5, -0.4, -1]])
VALUES = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5]])
SHORT, LONG = torch.tensor([[1, 1, 1, 1, 1, 0]]), torch.ones(1, 6, dtype=torch.long)
PROMPT = 3


def test_the_oracle_of_deepspeed_chats_formulas():
    """Specification section 2.4."""
    ppo = Ppo(dschat_compat=True)
    rewards = token_rewards(OLD, REFERENCE, torch.tensor([7.0]), SHORT, PROMPT, ppo)
    assert torch.allclose(rewards, torch.tensor([[-0.01, -0.02, 0.05, -0.01, 5.02]]))
    advantages, returns = advantages_of(VALUES, rewards, SHORT, PROMPT, ppo)
    assert torch.allclose(advantages, torch.tensor([[4.3148, 4.384, 4.52]]), atol=5e-5)
    assert torch.allclose(returns, torch.tensor([[4.6148, 4.784, 5.02]]), atol=5e-5)
    mask = SHORT[:, PROMPT:].float()
    old, new = OLD[:, 2:], OLD[:, 2:] + torch.tensor([[0.3, -0.1, 0.05]])
    assert float(actor_loss(new, old, advantages, mask, ppo)) == pytest.approx(-4.572284, abs=1e-6)
    before, after = VALUES[:, 2:], VALUES[:, 2:] + torch.tensor([[0.5, -0.05, 0.1]])
    found = float(critic_loss(after, before, returns, mask, ppo))
    assert found == pytest.approx(9.147985, abs=1e-6)


def test_the_score_lands_on_the_last_real_token():
    rewards = token_rewards(OLD, REFERENCE, torch.tensor([3.0]), SHORT, PROMPT, Ppo())
    assert torch.allclose(rewards[0, 3:], torch.tensor([2.99, 0.0]))
    whole = token_rewards(OLD, REFERENCE, torch.tensor([9.0]), LONG, PROMPT, Ppo())
    assert float(whole[0, -1]) == pytest.approx(5.02)
    compat = token_rewards(
        OLD, REFERENCE, torch.tensor([9.0]), LONG, PROMPT, Ppo(dschat_compat=True)
    )
    assert torch.equal(whole, compat)  # equal where no answer ends early


@given(st.floats(0, 1), st.floats(0, 1), st.integers(2, 6))
def test_advantages_are_the_sum_of_discounted_errors(gamma: float, lam: float, prompt: int):
    generator = torch.Generator().manual_seed(prompt)
    values, rewards = torch.randn(2, 3, 8, generator=generator, dtype=torch.float64)
    mask = torch.ones(3, 9, dtype=torch.long)
    ppo = Ppo(gamma=gamma, lam=lam)
    found = advantages_of(values, rewards, mask, prompt, ppo).advantages
    ahead = torch.cat([values[:, 1:], torch.zeros(3, 1)], 1)
    delta = (rewards + gamma * ahead - values)[:, prompt - 1 :]
    for j in range(delta.shape[1]):
        terms = [(gamma * lam) ** i * delta[:, j + i] for i in range(delta.shape[1] - j)]
        assert torch.allclose(found[:, j], torch.stack(terms).sum(0))


def test_unclipped_losses_have_the_plain_gradients():
    ppo, mask = Ppo(ratio_clip=10, value_clip=100), torch.ones(2, 3)
    new = torch.randn(2, 3, requires_grad=True)
    advantages = torch.randn(2, 3)
    actor_loss(new, new.detach(), advantages, mask, ppo).backward()
    assert torch.allclose(new.grad, -advantages / 6)


def test_log_probs_are_those_of_the_softmax():
    logits, targets = torch.randn(2, 3, 7), torch.randint(0, 7, (2, 3))
    expected = logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    assert torch.allclose(log_probs(logits, targets, 0, None), expected, atol=1e-6)


def test_draws_follow_the_softmax_and_depend_on_nothing_but_their_place():
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    count = 40_000
    logits = probabilities.log().expand(count, 4)
    numbers, places = torch.arange(count), torch.full((count,), 9)
    tokens = draw(logits, Sampling(), 1, numbers, places)
    shares = torch.bincount(tokens, minlength=4) / count
    assert torch.allclose(shares, probabilities, atol=0.01)
    part = draw(logits[100:200], Sampling(), 1, numbers[100:200], places[100:200])
    assert torch.equal(part, tokens[100:200])
    other = draw(logits, Sampling(), 2, numbers, places)
    assert not torch.equal(other, tokens)


def test_noise_has_the_mean_of_gumbels_distribution():
    noise = gumbel(0, torch.arange(200), torch.arange(200), 500)
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.02)
    assert torch.isfinite(noise).all()


def test_top_k_and_top_p_leave_only_the_likely_tokens():
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]]).expand(500, 4)
    numbers, places = torch.arange(500), torch.zeros(500, dtype=torch.long)
    assert set(draw(logits, Sampling(top_k=2), 0, numbers, places).tolist()) == {0, 1}
    assert set(draw(logits, Sampling(top_p=0.5), 0, numbers, places).tolist()) == {0}
    cold = draw(logits, Sampling(temperature=0.01), 0, numbers, places)
    assert set(cold.tolist()) == {0}


def test_rates_rise_then_fall_to_the_least():
    o = Optimizer(rate=1.0, least_rate=0.1, warmup=0.1)
    rates = [learning_rate(o, step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1.0
    assert rates[100] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)


@settings(max_examples=20)
@given(st.text(max_size=20))
def test_bytes_read_back(text: str):
    tokenizer = Bytes()
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_batches_take_every_prompt_once_an_epoch_and_pad_on_the_left():
    ids = [[1, 10 + n] for n in range(6)]
    steps = [batch_of(ids, 0, 4, order_of(6, 4, step, 5))[0] for step in range(3)]
    taken = [int(row[-1]) for rows in steps for row in rows]
    assert sorted(taken[:6]) == sorted(taken[6:]) == [10, 11, 12, 13, 14, 15]
    tokens, valid = batch_of(ids, 0, 4, order_of(6, 4, 0, 5))
    assert (tokens[:, :2] == 0).all()
    assert (valid == [[0, 0, 1, 1]] * 4).all()


def test_prompts_come_from_jsonl_and_parquet(tmp_path):
    import pyarrow
    from pyarrow import parquet

    lines = tmp_path / "p.jsonl"
    lines.write_text(json.dumps({"prompt": "one", "chosen": "x"}) + "\n")
    assert load_rows(str(lines)) == [{"prompt": "one", "chosen": "x"}]
    table = tmp_path / "p.parquet"
    parquet.write_table(pyarrow.table({"prompt": ["two", "three"]}), table)
    assert [row["prompt"] for row in load_rows(str(table))] == ["two", "three"]
    assert len(load_rows("small")) == 64
    lines.write_text(json.dumps({"prompt": "a\u2028b"}, ensure_ascii=False) + "\r\n\r\n")
    assert load_rows(str(lines)) == [{"prompt": "a\u2028b"}]  # a line ends at a newline alone


def test_what_cannot_be_used_is_refused_in_one_sentence(tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "x"}\n')
    with pytest.raises(InputError, match="line 1: no JSON object with a 'prompt'"):
        load_rows(str(bad))
    for text, message in (
        ("", "no prompts in it"),
        ("\n\n", "no prompts in it"),
        ('{"prompt": "x"}\n{"prom', "line 2: no JSON object"),
        ('["prompt"]\n', "line 1: no JSON object"),
        ('{"prompt": null}\n', "line 1: the prompt is 'None', expected text"),
        ('{"prompt": 3}\n', "line 1: the prompt is '3', expected text"),
    ):
        bad.write_text(text)
        with pytest.raises(InputError, match=message):
            load_rows(str(bad))
    bad.write_bytes(b'{"prompt": "\xff"}\n')
    with pytest.raises(InputError, match="not UTF-8 text at byte 12"):
        load_rows(str(bad))
    with pytest.raises(InputError, match="neither 'small' nor a file"):
        load_rows("none.jsonl")
    with pytest.raises(
        InputError, match=r"all 1 have more than work\.prompt \(4\) tokens, the shortest 6"
    ):
        fitting([{"prompt": "hello"}], Bytes(), 4)
    with pytest.raises(InputError, match=r"expected 'model', 'letters"):
        check_rewards(Running(reward="length"), [{"prompt": "x"}])


def test_a_parquet_file_that_cannot_be_used_is_refused_in_one_sentence(tmp_path):
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "p.parquet"
    for columns, message in (
        ({"text": ["x"]}, "no whole parquet file with a column 'prompt'"),
        ({"prompt": pyarrow.array([], pyarrow.string())}, "no prompts in it"),
        ({"prompt": ["x", None]}, "row 2: the prompt is 'None', expected text"),
    ):
        parquet.write_table(pyarrow.table(columns), path)
        with pytest.raises(InputError, match=message):
            load_rows(str(path))
    parquet.write_table(pyarrow.table({"prompt": ["x"]}), path)
    for content in (b"", path.read_bytes()[:-20], b"{}"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="no whole parquet file"):
            load_rows(str(path))


def test_a_folder_without_a_tokenizer_and_a_prompt_without_tokens_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds no tokenizer that transformers can read"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="holds no tokenizer that transformers can read"):
        load_tokenizer(str(tmp_path))

    class Silent(Bytes):
        def encode(self, text: str) -> list[int]:
            return []

    with pytest.raises(InputError, match="prompt 1 has no tokens"):
        fitting([{"prompt": ""}], Silent(), 4)


def test_a_programmed_reward_counts_letters():
    made = Rewards(Running(reward="letters:ab"))
    assert made.score([{"answer": "abxx"}, {"answer": ""}]) == [0.5, 0.0]
    assert not made.needs_model
    assert Rewards(Running()).needs_model


def test_seeds_of_numpy_are_not_shared():
    assert order_of(50, 50, 0, 0) != order_of(50, 50, 0, 1)
