"""Bound, local search and dispatch: what they promise."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beta.inputs.cluster import GIB, Cluster
from beta.inputs.model import MIX, Model, models_of
from beta.inputs.profile import SINGLE, Config, Profile, Record, read_profiles
from beta.inputs.workload import Workload, gamma_workload
from beta.plan.baselines import selective_replication
from beta.plan.bound import fluid_work, upper_bound
from beta.plan.demand import demand
from beta.plan.improve import local_search
from beta.plan.methods import Solved, solve
from beta.plan.placement import Group, Placement, Timetable, verify
from beta.plan.problem import Problem
from beta.plan.replan import aligned, replan
from beta.plan.search import search
from beta.simulate.windows import simulate_timetable
from common.errors import InputError

PROFILES = read_profiles()
JOB = st.tuples(st.floats(0, 10), st.floats(0.1, 5), st.floats(0.1, 4))


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    types = draw(st.lists(st.sampled_from(MIX), min_size=1, max_size=8))
    rates = [draw(st.floats(0.2, 6)) for _ in types]
    slo, cv = draw(st.sampled_from([0.8, 1.5, 5])), draw(st.sampled_from([0.5, 1, 4]))
    models = models_of(types, PROFILES, rates=rates, cv=cv, slo_scale=slo)
    memory = draw(st.integers(2, 16)) * GIB
    cluster = Cluster(devices=draw(st.integers(1, 8)), memory_bytes=memory)
    return Problem(models, cluster, gamma_workload(models, duration=20, seed=3))


@given(problems())
def test_no_placement_passes_the_bound(problem: Problem):
    if not len(problem.train):
        return
    bound = upper_bound(problem).attainment
    for policy in (search, selective_replication):
        assert policy(problem).goodput <= bound + 1e-12


@settings(max_examples=30)
@given(st.lists(JOB, min_size=1, max_size=7), st.integers(1, 3))
def test_fluid_work_is_the_linear_programs(jobs: list[tuple[float, float, float]], speed: int):
    optimize = pytest.importorskip("scipy.optimize")
    jobs = sorted(jobs)
    edges = sorted({t for a, slack, _ in jobs for t in (a, a + slack)})
    spans = list(pairwise(edges))
    pairs = [
        (j, k)
        for j, (a, slack, _) in enumerate(jobs)
        for k, (low, high) in enumerate(spans)
        if a <= low and high <= a + slack
    ]
    rows = np.zeros((len(jobs) + len(spans), len(pairs)))
    for column, (j, k) in enumerate(pairs):
        rows[j, column] = rows[len(jobs) + k, column] = 1
    limits = [work for _, _, work in jobs] + [speed * (high - low) for low, high in spans]
    most = -optimize.linprog(-np.ones(len(pairs)), A_ub=rows, b_ub=limits).fun
    arrival, slack, work = (np.array(column) for column in zip(*jobs, strict=True))
    found = fluid_work(arrival, arrival + slack, work, float(speed))
    assert found == pytest.approx(most, rel=1e-6)


def test_models_of_unknown_or_no_weights_are_bounded_too():
    known = {SINGLE: Record(stage_s={1: (0.1,)}, weight_bytes=(0.0,))}
    unknown = {SINGLE: Record(stage_s={1: (0.1,)})}
    models = tuple(
        Model(name=name, profile=Profile(model=name, records=records), slo_s=1.0, rate=1.0)
        for name, records in (("known", known), ("unknown", unknown))
    )
    workload = Workload(np.arange(10.0), np.array([0, 0, 0, 1, 1] * 2, np.int32))
    problem = Problem(models, Cluster(devices=1), workload)
    assert upper_bound(problem).memory == pytest.approx(0.6)
    assert search(problem).goodput == 0.6


def test_fluid_work_ends_where_a_crumb_would_not_advance_time():
    arrival = np.full(50, 3000.0) + np.arange(50) * 1e-13
    work = np.full(50, 0.3 + 2e-12)
    found = fluid_work(arrival, arrival + 9, work, 48.0)
    assert found == pytest.approx(work.sum(), rel=1e-9)


def test_work_of_an_answer_is_that_of_the_cheapest_config_in_time():
    def least(scale: float, devices: int) -> float:
        models = models_of(["bert-6.7b"], PROFILES, rates=[1], cv=1, slo_scale=scale)
        one = Workload(np.zeros(1), np.zeros(1, np.int32))
        return float(demand(Problem(models, Cluster(devices=devices), one)).least_work_s[0])

    profile = PROFILES["bert-6.7b"]
    eight = sum(profile.records[Config(8, 1)].stage_s[1])
    assert least(0.3, 8) == pytest.approx(8 * eight * 1.009, rel=1e-6)
    assert least(0.3, 4) == np.inf
    assert least(5, 8) == pytest.approx(profile.single_s * 1.009, rel=1e-6)


@settings(max_examples=15)
@given(problems())
def test_local_search_never_does_worse_and_stays_within_memory(problem: Problem):
    start = search(problem)
    found = local_search(problem, start, time_limit_s=3600, steps=12)
    assert found.score >= start.score - 1e-12
    verify(found.placement, problem.models, problem.cluster)
    again = local_search(problem, start, time_limit_s=3600, steps=12)
    assert found.placement == again.placement


def solve_in_time(problem: Problem, name: str) -> Solved:
    """Solve quickly, or with patience where a slow machine's solver says that it needs it."""
    try:
        return solve(problem, name, 0.2)
    except InputError as error:
        if "allow more time" not in str(error):
            raise
        return solve(problem, name, 60.0)


@settings(max_examples=8)
@given(problems())
def test_every_method_stays_within_devices_memory_and_the_bound(problem: Problem):
    if not len(problem.train) or not all(problem.train.counts(len(problem.models))):
        return
    bound = upper_bound(problem).attainment
    for name in (
        "sr-greedy",
        "sr-ilp",
        "mp-search-sep",
        "mp-ilp",
        "mp-evo",
        "sr-evo",
        "mp-improve",
    ):
        solved = solve_in_time(problem, name)
        verify(solved.timetable.placements[0], problem.models, problem.cluster)
        assert solved.train_attainment is not None
        assert solved.train_attainment <= bound + 1e-12


def test_evolution_is_no_worse_than_where_it_starts():
    models = models_of(list(MIX), PROFILES, rates=[2] * 6, cv=4, slo_scale=5)
    problem = Problem(models, Cluster(devices=6), gamma_workload(models, duration=60, seed=1))
    assert solve(problem, "mp-evo", 1.0).score >= search(problem).score
    assert solve(problem, "sr-evo", 0.5).score >= selective_replication(problem).score


def test_windows_are_placed_by_the_one_before_and_swaps_are_paid_for():
    models = models_of(["bert-6.7b"] * 2, PROFILES, rates=[2, 2], cv=1, slo_scale=5)
    first, second = (gamma_workload(models, duration=40, seed=seed) for seed in (1, 2))
    arrival = np.concatenate(
        [first.arrival[first.model == 0], 40 + second.arrival[second.model == 1]]
    )
    model = np.repeat([0, 1], [int((first.model == 0).sum()), int((second.model == 1).sum())])
    train = Workload(arrival, model.astype(np.int32))
    problem = Problem(models, Cluster(devices=1), train, load_bytes_s=2.0**30)
    found = replan(problem, 20)
    assert [p.groups[0].models for p in found.placements] == [(0,), (1,)]
    assert found.start_s[1] > 40 + 15  # after the window that showed the drift
    tables = problem.tables((SINGLE,))
    paid = simulate_timetable(train, found, tables)
    free = simulate_timetable(train, Timetable(found.start_s, found.placements), tables)
    lost = (train.arrival >= found.start_s[1]) & (train.arrival < found.start_s[1] + 12)
    assert not paid.good[lost].any()
    assert free.good[lost].any()


def test_groups_stay_where_their_weights_are():
    models = models_of(["bert-1.3b"] * 4, PROFILES, rates=[1] * 4, cv=1, slo_scale=5)
    before = Placement((Group(SINGLE, (0, 1)), Group(SINGLE, (2, 3))))
    after = Placement((Group(SINGLE, (1, 2, 3)), Group(SINGLE, (0, 1))))
    assert aligned(before, after, models).groups == (after.groups[1], after.groups[0])
    other = Placement((Group(Config(1, 2), (0, 1, 2, 3)),))
    assert aligned(before, other, models) == other
