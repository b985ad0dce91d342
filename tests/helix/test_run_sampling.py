"""How the next token is chosen: against transformers' own processors, brute force and the law of
large numbers; and that a row never depends on the others of its batch."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helix.run.messages import Sampling
from helix.run.sampling import Drawing, draw, prompt_scored, uniform

CPU = torch.device("cpu")
SIZE = 40
SCORES = torch.linspace(-3, 3, SIZE)[
    torch.randperm(SIZE, generator=torch.Generator().manual_seed(0))
]
PAST = [3, 3, 7, 9, 3, 7, 20]  # the first three are the client's

HOWS = [
    Sampling(),
    Sampling(temperature=0.7, seed=3),
    Sampling(temperature=1.0, top_k=5, seed=4),
    Sampling(temperature=1.3, top_p=0.6, seed=5),
    Sampling(temperature=0.9, min_p=0.2, top_k=7, top_p=0.9, seed=6),
    Sampling(presence=1.5, frequency=0.5),
    Sampling(temperature=1.0, repetition=1.7, seed=8),
    Sampling(bias=((5, 100.0), (6, -100.0))),
    Sampling(temperature=1.0, bias=((5, 4.0),), least=9, banned=(1, 2), seed=1, logprobs=3),
]


def drawing(how: Sampling, past: list[int] = PAST, asked: int = 3) -> Drawing:
    return Drawing(how, asked, past, SIZE, CPU)


def one(how: Sampling, position: int = 7, scores: torch.Tensor = SCORES) -> int:
    return draw(scores[None], [drawing(how)], [position])[0].token


def chances(how: Sampling, draws: int = 20_000) -> torch.Tensor:
    """How often each token is drawn, over as many positions."""
    rows = SCORES.expand(draws, SIZE)
    same = drawing(how)
    found = Counter(d.token for d in draw(rows, [same] * draws, range(draws)))
    return torch.tensor([found[i] / draws for i in range(SIZE)])


def by_transformers(how: Sampling) -> torch.Tensor:
    """The probabilities that transformers' processors leave, in the order of other servers."""
    processors = pytest.importorskip("transformers").generation.logits_process
    ids, scores = torch.tensor([PAST]), SCORES[None].clone()
    if how.repetition != 1:
        scores = processors.RepetitionPenaltyLogitsProcessor(how.repetition)(ids, scores)
    scores = processors.TemperatureLogitsWarper(how.temperature)(ids, scores)
    if how.min_p:
        scores = processors.MinPLogitsWarper(how.min_p)(ids, scores)
    if how.top_k:
        scores = processors.TopKLogitsWarper(how.top_k)(ids, scores)
    if how.top_p < 1:
        scores = processors.TopPLogitsWarper(how.top_p)(ids, scores)
    return torch.softmax(scores[0], -1)


@pytest.mark.parametrize("how", [how for how in HOWS if how.temperature and not how.bias], ids=repr)
def test_tokens_are_drawn_as_often_as_transformers_would(how):
    expected, found = by_transformers(how), chances(how)
    assert set(found.nonzero().flatten().tolist()) <= set(expected.nonzero().flatten().tolist())
    # Five standard deviations of a share of 20,000 draws; the draws are fixed by their seeds.
    bound = 5 * (expected * (1 - expected) / 20_000).sqrt() + 1e-9
    assert ((found - expected).abs() <= bound).all()


@given(st.lists(st.integers(0, len(HOWS) - 1), min_size=1, max_size=12), st.integers(0, 1000))
@settings(deadline=None, max_examples=50)
def test_a_token_does_not_depend_on_the_batch(which, position):
    hows = [HOWS[i] for i in which]
    scores = torch.stack([SCORES.roll(i) for i in which])
    together = draw(scores, [drawing(how) for how in hows], [position] * len(hows))
    alone = [
        draw(row[None], [drawing(how)], [position])[0]
        for row, how in zip(scores, hows, strict=True)
    ]
    assert [d.token for d in together] == [d.token for d in alone]


def test_the_likeliest_is_taken_without_a_temperature():
    assert one(Sampling()) == int(SCORES.argmax())


@pytest.mark.parametrize(
    "how",
    [
        Sampling(temperature=1e-5),
        Sampling(temperature=1e-5, top_p=5e-324, min_p=1.0, top_k=1),
        Sampling(temperature=2.0, top_p=5e-324),
        Sampling(temperature=2.0, top_p=1e-45),
        Sampling(temperature=2.0, min_p=1.0),
        Sampling(temperature=2.0, top_k=1),
        Sampling(temperature=2.0, top_k=1 << 31, min_p=1.0),
    ],
)
def test_the_narrowest_filters_leave_the_likeliest(how):
    assert one(how) == int(SCORES.argmax())


def test_penalties_are_those_of_the_interface():
    how = Sampling(presence=1.5, frequency=0.5, repetition=2.0)
    changed = drawing(how).changed(SCORES, 7)
    answer = Counter(PAST[3:])
    for token, score in enumerate(SCORES.tolist()):
        if token in PAST:
            score = score / 2.0 if score > 0 else score * 2.0
        score -= 0.5 * answer[token] + 1.5 * (token in answer)
        assert changed[token] == pytest.approx(score, abs=1e-6)


def test_what_is_drawn_counts_as_what_a_former_attempt_drew():
    how = Sampling(presence=0.3, frequency=0.9)
    going, past = drawing(how, PAST[:3]), PAST[:3]
    for position in range(3, 9):
        again = Drawing(how, 3, past, SIZE, CPU)
        token = draw(SCORES[None], [going], [position])[0].token
        assert draw(SCORES[None], [again], [position])[0].token == token
        past = [*past, token]
    assert len(set(past[3:])) > 1


def test_banned_tokens_do_not_come_before_their_time():
    best = int(SCORES.argmax())
    how = Sampling(banned=(best,), least=4)
    tokens = [one(how, position) for position in range(3, 10)]  # three are the client's
    assert best not in tokens[:4]
    assert set(tokens[4:]) == {best}


def test_log_probabilities_are_those_before_any_change():
    how = Sampling(bias=((0, 100.0),), logprobs=3)
    found = draw(SCORES[None], [drawing(how)], [7])[0]
    logs = torch.log_softmax(SCORES, -1)
    assert found.token == 0
    assert found.scored is not None
    assert found.scored.logprob == pytest.approx(logs[0].item())
    assert [i for i, _ in found.scored.top] == logs.topk(3).indices.tolist()
    assert [log for _, log in found.scored.top] == pytest.approx(logs.topk(3).values.tolist())


def test_a_long_prompt_is_scored_in_parts():
    draw_ = torch.Generator().manual_seed(0)
    x_TD, head = torch.randn(300, 8, generator=draw_), torch.randn(SIZE, 8, generator=draw_)
    ids = torch.randint(SIZE, (300,), generator=draw_).tolist()
    how = Sampling(prompt_logprobs=2)
    found = prompt_scored(drawing(how, ids, 290), x_TD, lambda x: x @ head.T)
    logs = torch.log_softmax(x_TD @ head.T, -1)
    assert len(found) == 289
    for place, scored in enumerate(found):
        assert scored.logprob == pytest.approx(logs[place, ids[place + 1]].item(), abs=1e-5)
        assert [i for i, _ in scored.top] == logs[place].topk(2).indices.tolist()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_no_numbers_are_an_error(bad):
    scores = SCORES.clone()
    scores[4] = bad
    with pytest.raises(ValueError, match="not finite"):
        draw(torch.stack([SCORES, scores]), [drawing(Sampling())] * 2, [7, 7])


def test_draws_are_even_over_positions_and_over_seeds():
    for numbers in (
        [uniform(5, i) for i in range(10_000)],
        [uniform(i - 5000, 5) for i in range(10_000)],
    ):
        assert len(set(numbers)) == 10_000
        counts = Counter(int(20 * u) for u in numbers)
        assert set(counts) == set(range(20))
        # Chi-square with 19 degrees of freedom is beyond 43.8 once in a thousand.
        assert sum((count - 500) ** 2 / 500 for count in counts.values()) < 43.8
