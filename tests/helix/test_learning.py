"""What simulations teach the estimate."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix.paper.experiments import named
from helix.plan.baselines import swarm
from helix.plan.learning import NEAR, RIDGE, Lessons
from helix.plan.question import ask
from helix.plan.search_chains import estimate_of, facts_of
from helix.plan.search_problem import FACTS, search_problem


def lesson(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return true weights, and 60 placements: values, by what logarithm the estimate errs."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 0.3, FACTS)
    lessons = Lessons()
    facts = np.column_stack([np.ones(60), rng.uniform(0, 2, (60, FACTS - 1))])
    estimates = rng.uniform(100, 110, 60)
    simulated = estimates * np.exp(facts @ true)
    for one, estimate, value in zip(facts, estimates, simulated, strict=True):
        lessons.learn(one, estimate, value)
    return true, simulated, facts @ (lessons.weights() - true)


@given(st.integers(0, 2**32 - 1))
def test_an_error_that_follows_the_facts_is_learnt_but_for_what_the_ridge_holds_back(seed: int):
    true, simulated, off = lesson(seed)
    share = (simulated / simulated.max()) ** (1 / NEAR)
    # The least ridge objective is at most that of the true weights, which leave no error.
    assert (share * off**2).sum() <= RIDGE * 60 * (true[1:] ** 2).sum() * (1 + 1e-9)


def test_the_best_are_estimated_within_half_a_per_cent_once_learnt():
    errors = list[float]()
    for seed in range(200):
        _, simulated, off = lesson(seed)
        errors.append(np.abs(off[simulated > np.quantile(simulated, 0.8)]).mean())
    assert np.mean(errors) < 0.005


def test_nothing_learnt_changes_nothing_and_a_lesson_moves_the_estimate() -> None:
    question = ask(named()["geo-llama70b-search-offline"])
    problem = search_problem(question.cluster, question.model, question.profiles, question.speed)
    runs = swarm(question.cluster, question.model, question.speed, 20).intervals
    plain, facts = facts_of(problem, runs, False)
    lessons = Lessons()
    lessons.learn(facts, plain, 0.0)
    assert not lessons.weights().any()
    lessons.learn(facts, plain, 0.5 * plain)
    taught = problem._replace(learnt=lessons.weights())
    assert plain > 0
    assert estimate_of(taught, runs, False) == pytest.approx(0.5 * plain)
