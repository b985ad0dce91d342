"""The search in compat mode against runs of the original (golden.json)."""

from typing import Any

import numpy as np
import pytest

from common.errors import InputError
from metis.plan.search import RankedPlan, SearchResult, search
from tests.metis.golden_inputs import POLICY, as_golden, case_problem, golden, nodes8, table1_case

CASES = {case["name"]: case for case in golden()["cases"]}
RUNS = {
    f"row{run['row']}-{run['node_sequence'][0]}-{run['first_profile'][1]}-{run['mode']}": run
    for run in golden()["table1_reference_runs"]
}


def assert_same_plan(found: RankedPlan | None, expected: dict[str, Any] | None) -> None:
    if expected is None:
        assert found is None
        return
    assert found is not None
    assert found.cost_ms == pytest.approx(expected["cost"], rel=1e-9)
    assert as_golden(found) == {key: expected[key] for key in expected if key != "cost"}


def assert_same_search(result: SearchResult, expected: dict[str, Any]) -> None:
    plans = result.plans
    assert result.steps == expected["count"]
    assert len(plans.cost) == expected["num_plans"]
    assert result.uncostable == expected["key_errors"]
    assert int(result.phantom.sum()) == expected["num_stage_mismatch"]
    assert int(result.lossy.sum()) == expected["lost_layer_plans"]
    assert int((plans.empty > 0).sum()) == expected["empty_stage_plans"]
    assert plans.cost.sum() == pytest.approx(expected["cost_sum"], rel=1e-9)
    for attempts, times in expected["repart_hist"].items():
        assert int((plans.attempts == int(attempts)).sum()) == times
    assert_same_plan(result.best(), expected["best"])
    assert_same_plan(result.best(result.consistent), expected["best_consistent"])
    whole = result.consistent & (plans.empty == 0)
    assert_same_plan(result.best(whole), expected["best_strict"])
    for index, entry in zip(result.ranking(), expected["top"], strict=False):
        assert_same_plan(result.plan(int(index)), entry)


@pytest.mark.parametrize("mode", POLICY)
@pytest.mark.parametrize("name", CASES)
def test_search_equals_the_original(name: str, mode: str) -> None:
    case = CASES[name]
    result = search(case_problem(case), POLICY[mode])
    assert_same_search(result, case["results"][mode])


@pytest.mark.parametrize("name", RUNS)
def test_table1_equals_the_original(name: str) -> None:
    run = RUNS[name]
    result = search(case_problem(table1_case(run)), POLICY[run["mode"]])
    assert_same_search(result, run | {"top": [run["best"]]})


def test_table1_row4_of_the_metis_policy_has_the_published_count() -> None:
    row = golden()["published_table1"][3]
    run = RUNS["row4-A100-1-strat"]
    result = search(case_problem(table1_case(run)), "metis")
    assert result.steps == row["count"]["metis"]


def test_stratified_may_take_more_steps_as_in_the_original() -> None:
    problem = case_problem(nodes8())
    assert (search(problem, "metis").steps, search(problem, "stratified").steps) == (944, 1300)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_threads_change_neither_counts_nor_order(workers: int) -> None:
    problem = case_problem(CASES["mix_16dev_L10_rev"])
    alone, shared = search(problem, "metis", workers=1), search(problem, "metis", workers=workers)
    assert alone.steps == shared.steps
    for column, other in zip(alone.plans, shared.plans, strict=True):
        np.testing.assert_array_equal(column, other)


def test_unequal_nodes_are_placed_by_the_first_nodes_count_as_in_the_original() -> None:
    case = CASES["mix_8dev_L8"]
    larger_first = case | {"hosts": [["A100", 4], ["V100", 2], ["V100", 2]]}
    ranks = case_problem(larger_first).ranks(("A100", "V100"))
    assert [rank.device for rank in ranks.ranks] == ["A100"] * 4 + ["V100"] * 4
    assert [rank.node for rank in ranks.ranks] == [0] * 4 + [1] * 4
    assert search(case_problem(larger_first), "metis").steps > 0
    with pytest.raises(InputError, match="put the largest node first"):
        search(case_problem(case | {"hosts": [["A100", 2], ["V100", 4], ["V100", 2]]}), "metis")
