"""Greedy placement: the kernel against its readable twin, ties against numpy's."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beta.inputs.cluster import GIB, Cluster
from beta.inputs.model import MIX, models_of
from beta.inputs.profile import Config, read_profiles
from beta.inputs.workload import gamma_workload
from beta.plan.greedy import greedy, readable_greedy
from beta.plan.placement import verify
from beta.plan.problem import Problem, score
from beta.plan.switches import Switches
from beta.plan.ties import argsort
from tests.beta.golden_inputs import GOLDEN

PROFILES = read_profiles()
CONFIGS = [Config(op, pp) for op in (1, 2, 4) for pp in (1, 2, 4)]


@st.composite
def problems(draw: st.DrawFn) -> tuple[Problem, tuple[Config, ...]]:
    types = draw(st.lists(st.sampled_from(MIX), min_size=1, max_size=20))
    rates = [draw(st.floats(0.2, 4)) for _ in types]
    slo, cv = draw(st.sampled_from([1.5, 3, 5])), draw(st.sampled_from([0.5, 1, 4]))
    models = models_of(types, PROFILES, rates=rates, cv=cv, slo_scale=slo)
    configs = draw(st.lists(st.sampled_from(CONFIGS), min_size=1, max_size=20))
    train = gamma_workload(models, duration=20, seed=draw(st.integers(0, 99)))
    devices = sum(config.devices for config in configs)
    cluster = Cluster(devices=devices, memory_bytes=draw(st.integers(2, 16)) * GIB)
    return Problem(models, cluster, train, Switches(legacy_ties=draw(st.booleans()))), tuple(
        configs
    )


@given(problems())
def test_compiled_greedy_equals_its_twin(case: tuple[Problem, tuple[Config, ...]]):
    problem, configs = case
    found = greedy(problem, configs)
    assert found.placement == readable_greedy(problem, configs)
    verify(found.placement, problem.models, problem.cluster)
    again = score(problem, found.placement)
    assert found.good == again.good
    assert found.score == pytest.approx(again.score, rel=1e-12)


def test_legacy_order_is_that_of_numpy_1_23_5():
    for keys, order in json.loads((GOLDEN / "argsort_numpy_1_23_5.json").read_text())["cases"]:
        assert argsort(np.array(keys, float), True).tolist() == order


@given(st.lists(st.integers(0, 5), max_size=100))
def test_stable_order_keeps_equal_keys(keys: list[int]):
    order = argsort(np.array(keys, float), False).tolist()
    assert order == sorted(range(len(keys)), key=lambda i: keys[i])
    legacy = argsort(np.array(keys, float), True).tolist()
    assert [keys[i] for i in legacy] == sorted(keys)
