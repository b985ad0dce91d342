"""Placements and attainments against the original's, with its ties and with stable ones."""

from collections.abc import Callable
from typing import Any

import pytest

from beta.inputs.arrivals import gamma, split_rate
from beta.inputs.cluster import GIB, Cluster
from beta.inputs.model import models_of
from beta.inputs.workload import Workload, merge, training_workload
from beta.plan import baselines
from beta.plan.beam import replicated_by_beam
from beta.plan.integer import replicated_by_program, tolerances
from beta.plan.partition import (
    clusters,
    device_splits,
    divisors,
    enumerations,
    powers_in,
    powers_up_to,
    thinned,
)
from beta.plan.problem import Problem, Scored, evaluate
from beta.plan.search import search, search_separated
from beta.plan.switches import resolve
from beta.simulate.fast import simulate
from beta.simulate.statistics import trimmed
from tests.beta.golden_inputs import cases, profiles
from tests.beta.test_golden_simulate import placement_of

TIES = ("legacy", "stable")
PLACED = {name: case for name, case in cases("placement").items() if name != "pl_sr_ilp"}
END_TO_END = cases("e2e_equal", "e2e_general")

POLICIES: dict[str, Callable[..., Scored]] = {
    "sr-greedy": baselines.selective_replication,
    "sr-uniform": baselines.uniform,
    "sr-search": replicated_by_beam,
    "mp-greedy": baselines.fixed_groups,
    "mp-round-robin": baselines.round_robin,
    "mp-equal": baselines.one_group_each,
    "mp-search": search,
    "mp-search-sep": search_separated,
}


def solve(policy: str, problem: Problem) -> Scored:
    parts = policy.split(" ")[0].split("-")
    while parts and "-".join(parts) not in POLICIES:
        parts.pop()
    name = "-".join(parts)
    numbers = policy.split(" ")[0].removeprefix(name).split("-")
    return POLICIES[name](problem, *(int(n) for n in numbers if n))


def switches(ties: str):
    return resolve("compat", {"legacy_ties": ties == "legacy"})


def problem_of(given: dict[str, Any], ties: str) -> Problem:
    models = models_of(
        given["model_types"],
        profiles(),
        rates=given["rates"],
        cv=given["cv"],
        slo_scale=given["slo_scale"],
    )
    memory = given["mem_budget_gib"] * GIB
    cluster = Cluster(devices=given["num_devices"], memory_bytes=memory)
    return Problem(models, cluster, training_workload(models), switches(ties))


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("name", PLACED)
def test_placements_and_scores_equal_the_originals(name: str, ties: str):
    given, expect = PLACED[name]["input"], PLACED[name]["expect"][ties]
    problem = problem_of(given, ties)
    assert len(problem.train) == expect["num_train_requests"]
    found = solve(given["policy"], problem)
    assert found.placement == placement_of(expect)
    assert found.score == pytest.approx(expect["score"], rel=1e-9)
    assert found.goodput == pytest.approx(expect["train_goodput"], rel=1e-9)
    counts = evaluate(problem, found.placement)
    assert counts.group_requests.tolist() == expect["group_num_requests"]


def test_integer_program_reaches_the_originals_objective():
    case = cases("placement")["pl_sr_ilp"]
    problem = problem_of(case["input"], "legacy")
    found = tolerances(problem, replicated_by_program(problem).placement)
    theirs = tolerances(problem, placement_of(case["expect"]["legacy"]))
    ours = found.least + 1e-4 * found.total
    assert ours == pytest.approx(theirs.least + 1e-4 * theirs.total, rel=1e-6)


def end_to_end(given: dict[str, Any], ties: str) -> tuple[Problem, Workload]:
    count = given["num_models"] if "num_models" in given else len(given["model_types"])
    types = given.get("model_types") or [given["model_type"]] * count
    rates = split_rate(given["total_rate"], count, given["rate_distribution"])
    cv, duration = given["arrival_process_kwargs"]["cv"], given["duration"]
    models = models_of(types, profiles(), rates=list(rates), cv=cv, slo_scale=given["slo_scale"])
    test = merge(gamma(rate=rate, cv=cv, duration=duration, seed=i) for i, rate in enumerate(rates))
    train = training_workload(models) if "model_types" in given else test
    cluster = Cluster(devices=given["num_devices"], memory_bytes=given["mem_budget"])
    return Problem(models, cluster, train, switches(ties)), test


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("name", END_TO_END)
def test_attainments_equal_the_originals(name: str, ties: str):
    given, expect = END_TO_END[name]["input"], END_TO_END[name]["expect"][ties]
    problem, test = end_to_end(given, ties)
    found = solve(given["policy_name"], problem)
    assert found.placement == placement_of(expect["placement"])
    outcome = simulate(test, found.placement, problem.tables(found.placement.configs()))
    stats = trimmed(test, outcome)
    assert stats.requests == expect["num_requests"]
    assert stats.goodput == pytest.approx(expect["goodput"], rel=1e-9)
    assert stats.latency_with_refused_s == pytest.approx(expect["latency_mean"], rel=1e-9)


def test_enumerations_equal_the_originals():
    for devices, expect in cases("enumerate")["enumerate_uneven"]["expect"].items():
        found = [[[1, *config] for config in row] for row in enumerations(int(devices))]
        assert found == expect


def test_device_splits_equal_the_originals():
    for key, expect in cases("partitions")["partitions"]["expect"].items():
        devices, parts = (int(n) for n in key.removesuffix("_count").split(","))
        found = device_splits(devices, parts)
        if key.endswith("_count"):
            assert len(found) == expect
        else:
            assert [list(split) for split in found] == expect


def test_powers_and_divisors_equal_the_originals():
    expect = cases("util")["pow2"]["expect"]
    functions = {"get2tok": powers_up_to, "decompose2tok": powers_in, "get_factors": divisors}
    for name, function in functions.items():
        assert {n: function(int(n)) for n in expect[name]} == expect[name]


def test_separations_equal_the_originals():
    case = cases("separations")["separations_mixed"]
    models = models_of(
        case["input"]["model_types"], profiles(), rates=case["input"]["rates"], cv=3, slo_scale=5
    )
    for devices, expect in case["expect"].items():
        groups = clusters(models)
        assert [list(group) for group in groups] == expect["clusters"]
        splits = thinned(device_splits(int(devices), 2), groups, models)
        assert [list(split) for split in splits] == expect["device_splits"]
