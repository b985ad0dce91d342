"""Arrivals, rates and workloads against the original's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beta.inputs.arrivals import deterministic, gamma, modulated_poisson, poisson, split_rate
from beta.inputs.workload import Workload, merge
from common.errors import InputError
from tests.beta.golden_inputs import cases, merged_case

ARRIVALS = {name: case for name, case in cases("arrivals").items() if "seed" in case["input"]}


def looped(rate: float, cv: float, duration: float, seed: int, start: float) -> list[float]:
    """Return the arrivals as the original adds them up, one by one."""
    random = np.random.RandomState(seed)
    size = max(int(rate * duration * 1.2), 1)
    gaps = list(random.gamma(1 / cv**2, cv**2 / rate, size=size))
    now, arrivals = start + gaps.pop(0), []
    while now < start + duration:
        arrivals.append(now)
        gaps = gaps or list(random.gamma(1 / cv**2, cv**2 / rate, size=size))
        now += gaps.pop(0)
    return arrivals


@pytest.mark.parametrize("name", ARRIVALS)
def test_gamma_arrivals_equal_the_originals(name: str):
    given_, expect = ARRIVALS[name]["input"], ARRIVALS[name]["expect"]
    kwargs = {key: given_[key] for key in ("rate", "cv", "start", "duration", "seed")}
    found = merge([gamma(**kwargs)])
    assert len(found) == expect["n"]
    assert list(found.arrival[:5]) == expect["first"]
    assert found.arrival[-1] == expect["last"]
    assert found.arrival.sum() == pytest.approx(expect["sum"], rel=1e-12)
    assert found.rate == pytest.approx(expect["workload_rate"], rel=1e-9)
    assert found.cv == pytest.approx(expect["workload_cv"], rel=1e-9)


@given(
    rate=st.floats(0.05, 30),
    cv=st.floats(0.2, 8),
    duration=st.floats(0.1, 30),
    seed=st.integers(0, 2**32 - 1),
    start=st.floats(0, 1000),
)
def test_gamma_arrivals_are_bit_equal_to_a_loop(rate, cv, duration, seed, start):
    found = gamma(rate=rate, cv=cv, duration=duration, seed=seed, start=start)
    assert list(found) == looped(rate, cv, duration, seed, start)


def test_deterministic_arrivals_equal_the_originals():
    case = cases("arrivals")["arrivals_deterministic"]
    found = deterministic(rate=3, start=1.5, duration=4)
    assert found == pytest.approx(case["expect"]["arrivals"], rel=1e-12)


def test_poisson_is_gamma_with_cv_one():
    assert np.array_equal(
        poisson(rate=3, duration=10, seed=4), gamma(rate=3, cv=1, duration=10, seed=4)
    )


def test_modulated_arrivals_ascend_and_have_the_mean_rate():
    found = modulated_poisson(state_s=(5, 20), rates=(10, 1), duration=5000, seed=1)
    assert len(found) == int(5000 * (5 * 10 + 20 * 1) / 25)
    assert np.all(np.diff(found) >= 0)
    assert len(found) / found[-1] == pytest.approx(2.8, rel=0.1)


def test_power_law_rates_equal_the_originals():
    expect = cases("rates")["rates_power_law"]["expect"]["rates"]
    assert split_rate(40, 6, "power_law") == pytest.approx(expect, rel=1e-12)


def test_triangle_weights_halve_as_their_number_doubles():
    assert list(split_rate(9, 7, "triangle_decay") / split_rate(9, 7, "triangle_decay")[0]) == [
        *(1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25)
    ]


def test_merging_equals_the_originals():
    expect, found = cases("merge")["workload_merge"]["expect"], merged_case()
    assert len(found) == expect["n"]
    assert [f"m{m}" for m in found.model[:25]] == expect["order_first_25"]
    assert list(found.arrival[:5]) == expect["arrivals_first_5"]
    assert found.rate == pytest.approx(expect["rate"], rel=1e-9)
    assert found.cv == pytest.approx(expect["cv"], rel=1e-9)


def test_windows_equal_the_originals():
    expect = cases("split")["workload_split_time_interval"]["expect"]
    windows = merged_case().windows(6)
    assert [len(window) for window in windows] == expect["lengths"]
    assert [window.arrival[0] for window in windows] == expect["first"]


@given(st.lists(st.lists(st.floats(0, 100), max_size=20).map(sorted), min_size=1, max_size=4))
def test_merging_keeps_every_request(parts):
    found = merge([np.array(part) for part in parts])
    assert np.all(np.diff(found.arrival) >= 0)
    for model, part in enumerate(parts):
        assert list(found.arrival[found.model == model]) == part
    assert sum(map(len, found.windows(7))) == len(found)


def test_mistakes_are_named():
    with pytest.raises(InputError, match="positive rate"):
        gamma(rate=0, cv=1, duration=1, seed=0)
    with pytest.raises(InputError, match="expected one of"):
        split_rate(1, 2, "zipf")
    with pytest.raises(InputError, match="ascend"):
        Workload(np.array([1.0, 0.0]), np.zeros(2, np.int32))
