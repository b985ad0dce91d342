"""Twins, invariants and bounds of the search on random problems."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metis.inputs.cluster import Cluster, NodeGroup
from metis.inputs.model import Model
from metis.plan.convert import to_plan
from metis.plan.memory import slacks
from metis.plan.optimal import optimal
from metis.plan.plans import check
from metis.plan.problem import POLICIES, Policy, Problem
from metis.plan.search import RankedPlan, search
from metis.plan.stages import StageModel
from metis.plan.switches import Switches
from metis.plan.wider import wider
from tests.metis.problems import COMPAT, STRICT, make_profiles, problems

SLOW = settings(max_examples=25, deadline=None)
policies = st.sampled_from(POLICIES)
LINKS = {"intra_bandwidth": 50.0, "inter_bandwidth": 10.0}


def with_switches(problem: Problem, switches: Switches) -> Problem:
    return msgspec.structs.replace(problem, switches=switches)


def assert_twins(problem: Problem, policy: Policy) -> None:
    compiled = search(problem, policy)
    readable = search(problem, policy, engine="readable")
    assert compiled.steps == readable.steps
    assert compiled.uncostable == readable.uncostable
    for name, a, b in zip(compiled.plans._fields, compiled.plans, readable.plans, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


@SLOW
@given(problem=problems(), policy=policies)
def test_compiled_and_readable_engines_agree_in_strict_mode(
    problem: Problem, policy: Policy
) -> None:
    assert_twins(problem, policy)


@SLOW
@given(problem=problems(powers_of_two=True, switches=COMPAT), policy=policies)
def test_compiled_and_readable_engines_agree_in_compat_mode(
    problem: Problem, policy: Policy
) -> None:
    assert_twins(problem, policy)


@SLOW
@given(
    problem=problems(powers_of_two=True),
    policy=policies,
    flags=st.fixed_dictionaries({name: st.booleans() for name in Switches.__struct_fields__}),
)
def test_engines_agree_for_every_set_of_switches(
    problem: Problem, policy: Policy, flags: dict[str, bool]
) -> None:
    # A missing profile may end the whole search by design; both engines then stop the same way.
    assert_twins(
        with_switches(problem, Switches(**flags | {"missing_profile_aborts": False})), policy
    )


def some_plans(problem: Problem, count: int = 20) -> list[RankedPlan]:
    found = []
    for policy in POLICIES:
        result = search(problem, policy)
        plans = len(result.plans.cost)
        found += [result.plan(index) for index in range(0, plans, max(1, plans // count))]
    return found


@settings(max_examples=15, deadline=None)
@given(problem=problems())
def test_every_strict_plan_can_be_carried_out(problem: Problem) -> None:
    for found in some_plans(problem):
        check(to_plan(found, experiment="x", method="metis", mode="strict"))
        options, split = found.survivor.options, found.survivor.split
        assert min(slacks(options, split, found.batches)) >= 0
        for option in options:
            nodes = [
                found.model.ranks.ranks[option.first_rank + i].node for i in range(option.devices)
            ]
            for replica in range(option.dp):
                group = nodes[replica * option.tp : (replica + 1) * option.tp]
                assert len(set(group)) == 1, "a tensor group leaves its node"


def enumerated_best(problem: Problem) -> float | None:
    costs = []
    for policy in POLICIES:
        result = search(problem, policy)
        best = result.best(result.consistent & (result.plans.empty == 0))
        costs += [best.cost_ms] if best else []
    return min(costs, default=None)


@SLOW
@given(problem=problems())
def test_optimal_equals_full_enumeration_in_strict_mode(problem: Problem) -> None:
    unlimited = msgspec.structs.replace(problem, max_permute_len=128)
    found = optimal(unlimited)
    assert found.proven
    assert (found.plan.cost_ms if found.plan else None) == enumerated_best(unlimited)


@SLOW
@given(problem=problems(powers_of_two=True, switches=COMPAT))
def test_optimal_equals_full_enumeration_in_compat_mode(problem: Problem) -> None:
    unlimited = msgspec.structs.replace(problem, max_permute_len=128)
    found = optimal(unlimited)
    assert (found.plan.cost_ms if found.plan else None) == enumerated_best(unlimited)


@SLOW
@given(problem=problems())
def test_wider_bound_is_below_every_plan_of_every_method(problem: Problem) -> None:
    found, best = wider(problem), enumerated_best(problem)
    if found.plan is not None:
        assert found.lower_bound_ms <= found.plan.cost_ms * (1 + 1e-12)
        plan = to_plan(found.plan, experiment="x", method="wider", mode="strict")
        check(plan)
        assert (
            min(slacks(found.plan.survivor.options, found.plan.survivor.split, plan.batches)) >= 0
        )
    if best is not None:
        assert found.lower_bound_ms <= best * (1 + 1e-12)


@settings(max_examples=10, deadline=None)
@given(problem=problems())
def test_an_interrupted_wider_search_still_bounds(problem: Problem) -> None:
    whole, cut = wider(problem), wider(problem, time_limit_s=1e-9)
    assert not cut.finished
    assert cut.lower_bound_ms <= whole.lower_bound_ms * (1 + 1e-12)


@settings(max_examples=10, deadline=None)
@given(problem=problems())
def test_an_interrupted_optimal_search_still_bounds(problem: Problem) -> None:
    whole, cut = optimal(problem), optimal(problem, time_limit_s=1e-9)
    assert not cut.proven or cut.cells == 0
    assert cut.lower_bound_ms <= whole.lower_bound_ms * (1 + 1e-12)


@pytest.mark.parametrize(("switches", "times"), [(STRICT, 1), (COMPAT, 2)])
def test_an_optimizer_step_counts_as_often_as_the_mode_says(switches: Switches, times: int) -> None:
    nodes = (NodeGroup(device="A", count=2, devices=2, memory_gb=900.0, **LINKS),)
    problem = Problem(
        model=Model(layers=4, hidden_size=256, heads=8, global_batch=8),
        cluster=Cluster(nodes=nodes),
        profiles=make_profiles(4, {"A": 1.0}, uneven=False, max_tp=2),
        node_types=("A",),
        switches=switches,
        max_tp=2,
        max_batch_size=16,
        group_variance=1.0,
        max_permute_len=128,
    )
    option = StageModel(problem, problem.ranks(("A",))).option(0, 4, 4, 1, 1)
    assert option is not None
    assert option.optimizer_ms == times * 12.0


@pytest.mark.parametrize("name", Switches.__struct_fields__)
def test_modes_set_every_switch(name: str) -> None:
    assert getattr(COMPAT, name) is True
    assert getattr(STRICT, name) is False


@pytest.mark.parametrize("switches", [STRICT, COMPAT, Switches(intra_bandwidth_only=True)])
def test_groups_share_tables_only_where_they_are_alike(switches: Switches) -> None:
    """The original counts some ranks of unequal nodes to a node of another type."""
    nodes = (("A", 4), ("A", 1), ("C", 2), ("A", 1))
    problem = Problem(
        model=Model(layers=4, hidden_size=256, heads=8, global_batch=8),
        cluster=Cluster(
            nodes=tuple(
                NodeGroup(
                    device=device,
                    devices=count,
                    memory_gb=24.0,
                    intra_bandwidth={"A": 50.0, "C": 20.0}[device],
                    inter_bandwidth=10.0,
                )
                for device, count in nodes
            )
        ),
        profiles=make_profiles(4, {"A": 1.0, "C": 4.0}, uneven=False, max_tp=1),
        node_types=("A", "C"),
        switches=switches,
        max_tp=1,
        max_batch_size=16,
        group_variance=1.0,
        max_permute_len=128,
    )
    ranks = problem.ranks(("A", "C"))
    shared = StageModel(problem, ranks)
    for size in (1, 2, 4):
        for first in range(problem.devices - size + 1):
            ours = shared.option(first, size, size, 1, 1)
            alone = StageModel(problem, ranks).option(first, size, size, 1, 1)
            assert ours is not None
            assert alone is not None
            np.testing.assert_array_equal(ours.time, alone.time)
            scalars = ("first_rank", "intra_bandwidth", "inter_bandwidth", "node_span", "samples")
            for field in scalars:
                assert getattr(ours, field) == getattr(alone, field), (first, size, field)
