"""The simulators against the original's own numbers."""

from typing import Any

import numpy as np
import pytest

from beta.inputs.arrivals import poisson
from beta.inputs.model import Model
from beta.inputs.playing import Delays
from beta.inputs.profile import Config
from beta.inputs.workload import UNKNOWN, Workload, merge
from beta.plan.placement import Group, Placement
from beta.simulate import batching, events, fast
from beta.simulate.fast import Outcome
from beta.simulate.statistics import counted, trimmed
from beta.simulate.tables import tables_of
from tests.beta.golden_inputs import cases, profiles

EXPLICIT = cases("approx_explicit")
STATS = cases("approx_stats")
EXACT = {"rel": 1e-9, "abs": 1e-12}


def placement_of(given: dict[str, Any]) -> Placement:
    pairs = zip(given["group_configs"], given["group_models"], strict=True)
    return Placement(tuple(Group(Config(op, pp), tuple(models)) for (_, op, pp), models in pairs))


def requests_of(given: dict[str, Any]) -> tuple[Workload, np.ndarray, tuple[Model, ...]]:
    names, known = list(given["models"]), profiles()
    models = tuple(Model(name=n, profile=known[kind]) for n, kind in given["models"].items())
    arrival, name, slo = zip(*given["requests"], strict=True)
    index = [names.index(n) if n in names else UNKNOWN for n in name]
    return Workload(np.array(arrival), np.array(index, np.int32)), np.array(slo), models


def assert_explicit(found: Outcome, workload: Workload, expect: dict[str, Any]) -> None:
    assert found.finish == pytest.approx(expect["finish"], **EXACT)
    assert found.good.tolist() == expect["good"]
    groups = len(expect["group_num_requests"])
    models = len(expect["model_num_requests"])
    counts = counted(workload, found, models=models, groups=groups)
    assert counts.model_requests.tolist() == expect["model_num_requests"]
    assert counts.model_good.tolist() == expect["model_num_good"]
    assert counts.group_requests.tolist() == expect["group_num_requests"]
    good = np.bincount(found.group[found.good], minlength=groups)
    assert good.tolist() == expect["group_num_good"]


@pytest.mark.parametrize("name", EXPLICIT)
def test_every_request_finishes_as_in_the_original(name: str):
    given, expect = EXPLICIT[name]["input"], EXPLICIT[name]["expect"]
    workload, slo, models = requests_of(given)
    placement = placement_of(given)
    if given["batching"]:
        found = batching.simulate(workload, placement, models, slo=slo)
    else:
        tables = tables_of(models, placement.configs())
        found = fast.simulate(workload, placement, tables, slo=slo)
    assert_explicit(found, workload, expect)


def poisson_case(given: dict[str, Any]) -> tuple[Workload, tuple[Model, ...]]:
    rate, duration = given["poisson_rate"], given["duration"]
    workload = merge(poisson(rate=rate, duration=duration, seed=seed) for seed in given["seeds"])
    profile = profiles()[given["model"]]
    names = given.get("models", ["a", "b"])
    return workload, tuple(Model(name=n, profile=profile, slo_s=given["slo"]) for n in names)


@pytest.mark.parametrize("name", STATS)
def test_statistics_equal_the_originals(name: str):
    given, expect = STATS[name]["input"], STATS[name]["expect"]
    workload, models = poisson_case(given)
    placement = placement_of(given)
    found = fast.simulate(workload, placement, tables_of(models, placement.configs()))
    counts = counted(workload, found, models=2, groups=len(placement.groups))
    whole, cut = expect["fast"], expect["trimmed"]
    assert len(workload) == whole["num_requests"]
    assert counts.goodput == pytest.approx(whole["goodput"], **EXACT)
    assert counts.latency_s == pytest.approx(whole["latency_mean"], **EXACT)
    assert counts.group_requests.tolist() == whole["group_num_requests"]
    assert counts.model_requests.tolist() == whole["per_model_num"]
    assert counts.model_goodput == pytest.approx(whole["per_model_goodput"], **EXACT)
    stats = trimmed(workload, found, warm_up_s=given["warmup"])
    assert stats.requests == cut["num_requests"]
    assert stats.goodput == pytest.approx(cut["goodput"], **EXACT)
    assert stats.latency_with_refused_s == pytest.approx(cut["latency_mean"], **EXACT)
    assert stats.request_rate == pytest.approx(cut["request_rate"], **EXACT)
    for mine, theirs in zip(stats.models, cut["per_model"], strict=True):
        assert (models[mine.model].name, mine.requests) == (theirs["name"], theirs["num_requests"])
        keys = ("goodput", "throughput", "latency_mean", "latency_std", "p90", "p99")
        assert mine[2:] == pytest.approx([theirs[key] for key in keys], **EXACT)


DES = cases("des_explicit")
FIXED = Delays(deviation_s=0)


@pytest.mark.parametrize("name", DES)
def test_events_finish_requests_as_in_the_original(name: str):
    given, expect = DES[name]["input"], DES[name]["expect"]
    workload, slo, models = requests_of(given)
    found = events.simulate(workload, placement_of(given), models, slo=slo, delays=FIXED)
    assert found.finish == pytest.approx(expect["finish"], **EXACT)
    assert found.good.tolist() == expect["good"]
    total = np.bincount(found.group, minlength=len(given["group_configs"]))
    assert total.tolist() == expect["group_total"]


def test_statistics_of_events_equal_the_originals():
    case = cases("des_stats")["des_stats_pipeline_2x"]
    workload, models = poisson_case(case["input"])
    found = events.simulate(workload, placement_of(case["input"]), models, delays=FIXED)
    stats, expect = trimmed(workload, found), case["expect"]
    assert stats.requests == expect["num_requests"]
    assert stats.goodput == pytest.approx(expect["goodput"], **EXACT)
    assert stats.latency_with_refused_s == pytest.approx(expect["latency_mean"], **EXACT)
    assert np.bincount(found.group).tolist() == expect["group_total"]
