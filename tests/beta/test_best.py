"""The default: never worse than any method, inside nodes, at once where little is asked."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beta.inputs.cluster import Cluster
from beta.inputs.examples import small
from beta.inputs.experiment import ClusterSettings, Experiment, ModelSettings
from beta.inputs.load import load
from beta.inputs.playing import SimulatorSettings
from beta.inputs.profile import Config
from beta.inputs.traffic import Traffic
from beta.inputs.workload import Workload, gamma_workload
from beta.plan import exhaustive
from beta.plan.answer import place, plan_of, problem_of
from beta.plan.apart import near_splits, search_apart
from beta.plan.best import best
from beta.plan.exhaustive import every_placement
from beta.plan.methods import solve
from beta.plan.partition import clusters, enumerations, inside_nodes
from beta.plan.placement import Group, Placement, packed, verify
from beta.plan.pods import looks, side_by_side
from beta.plan.problem import Problem
from beta.plan.search import search, search_separated
from common.errors import InputError
from tests.beta.test_beyond import problems as larger_problems
from tests.beta.test_bound import attainment, placements
from tests.beta.test_bound import problems as tiny_problems

METHODS = (
    "mp-search-sep", "mp-search", "mp-greedy-1", "mp-greedy-2", "mp-greedy-3", "mp-round-robin",
    "mp-equal-1-1", "mp-equal-2-1", "sr-greedy", "sr-search", "sr-uniform", "sr-ilp", "mp-ilp",
)  # fmt: skip


def found_by(problem: Problem, name: str) -> Placement | None:
    try:
        return solve(problem, name, 5.0).timetable.placements[0]
    except InputError:  # it does not apply
        return None


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(tiny_problems())
def test_the_default_is_the_best_of_all_placements_where_they_can_be_tried(problem: Problem):
    everything = every_placement(problem)
    if everything is None:
        return
    chosen = best(problem, 0.1)
    assert chosen.proved
    most = max(attainment(problem, placement) for placement in placements(problem))
    assert attainment(problem, chosen.scored.placement) >= most


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(larger_problems(), st.sampled_from(["fast", "batching", "events"]))
def test_the_default_is_never_worse_than_any_method(problem: Problem, kind):
    if not len(problem.train) or not all(problem.train.counts(len(problem.models))):
        return
    problem = problem._replace(playing=SimulatorSettings(kind=kind))
    chosen = attainment(problem, best(problem, 0.2).scored.placement)
    for name in METHODS:
        placement = found_by(problem, name)
        if placement is not None:
            assert chosen >= attainment(problem, placement), name


def test_a_method_that_searches_differently_can_win_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(exhaustive, "MOST_PLACEMENTS", 0)
    # Nodes of 3 devices: pipelines of 3 hold all models, and no cut into powers of two has them.
    head = "model,op,pp,batch,stage,latency_s,weight_bytes\n"
    rows = ["a,1,1,1,0,1.0,9e9", *(f"a,1,3,1,{k},0.34,3e9" for k in range(3))]
    (tmp_path / "p.csv").write_text(head + "\n".join(rows))
    rows = [f"{second},a-{number}" for second in range(300) for number in (second % 5, 4)]
    (tmp_path / "log.csv").write_text("arrival_s,model\n" + "\n".join(rows))
    experiment = Experiment(
        name="three",
        cluster=ClusterSettings(devices=3, devices_per_node=3, memory_gib=16.0),
        models=(ModelSettings(types=("a",), count=5, slo_s=1.5),),
        profile=str(tmp_path / "p.csv"),
        traffic=Traffic(source="requests", path=str(tmp_path / "log.csv"), rate=1.0),
    )
    loaded = load(experiment)
    assert loaded.train is loaded.test or len(loaded.train) == len(loaded.test)
    solved = place(experiment, loaded)
    assert solved.by == "mp-greedy-3"
    assert solved.train_attainment is not None
    assert solved.train_attainment > search(problem_of(experiment, loaded)).goodput
    plan = plan_of(experiment, solved, loaded)
    assert [(g.first_device, g.pp) for g in plan.periods[0].groups] == [(0, 3)]


def test_nothing_is_compiled_for_one_model_on_one_device(monkeypatch: pytest.MonkeyPatch):
    train = Workload(np.arange(300.0), np.zeros(300, np.int32))
    problem = Problem(load(small()).models[:1], Cluster(devices=1), train)
    for kernel in ("greedy", "refill"):
        monkeypatch.setattr(f"beta.plan.greedy.{kernel}", None)
    chosen = best(problem, 1.0)
    assert (chosen.by, chosen.proved, chosen.good) == ("all placements", True, 300)


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=12),
    st.sampled_from([2, 4, 8]),
    st.integers(0, 20),
)
def test_groups_of_powers_of_two_always_lie_inside_nodes(powers, per_node, spare):
    sizes = [1 << power for power in powers]
    cluster = Cluster(devices=sum(sizes) + spare, devices_per_node=per_node)
    placement = Placement(tuple(Group(Config(1, size)) for size in sizes))
    first = packed(placement, cluster)
    if first is None:  # only where the last node is not a whole one
        assert cluster.devices % per_node
        return
    held = [d for at, size in zip(first, sizes, strict=True) for d in range(at, at + size)]
    assert len(set(held)) == len(held)
    assert max(held) < cluster.devices
    for at, size in zip(first, sizes, strict=True):
        inside = at // per_node == (at + size - 1) // per_node
        assert inside or (at % per_node == 0 and size % per_node == 0)


@pytest.mark.parametrize(("devices", "per_node"), [(40, 8), (24, 8), (12, 6), (20, 8), (7, 5)])
def test_every_cut_lies_inside_nodes(devices: int, per_node: int):
    known = frozenset(Config(op, pp) for op, pp in product((1, 2, 4), (1, 2, 4, 8)))
    cluster = Cluster(devices=devices, devices_per_node=per_node)
    for cut in enumerations(devices, per_node=per_node, profiled=known):
        assert packed(Placement(tuple(map(Group, cut))), cluster) is not None
    assert inside_nodes(12, 4, 6) == (2, [2, 2])
    assert inside_nodes(20, 8, 8) == (2, [4])
    assert inside_nodes(40, 16, 8) == (2, [8])


def test_groups_that_straddle_nodes_are_refused():
    cluster = Cluster(devices=12, devices_per_node=6)
    models = load(small()).models
    with pytest.raises(InputError, match="do not fit into nodes of 6"):
        verify(Placement((Group(Config(1, 4)),) * 3), models, cluster)
    verify(Placement((Group(Config(1, 4)),) * 2), models, cluster)


@pytest.mark.slow
def test_more_is_not_tried_than_may_be(monkeypatch: pytest.MonkeyPatch):
    problem = problem_of(small(), load(small()))
    monkeypatch.setattr("beta.plan.best.MOST_WALKED", 200_000)
    monkeypatch.setattr("beta.plan.best.LARGE", 0)
    chosen = best(problem, 0.1)
    assert {"mp-search-sep", "sr-search", "mp-evo"} <= set(chosen.left_out)
    assert chosen.good > 0
    monkeypatch.setattr(exhaustive, "MOST_PLACEMENTS", 0)
    assert every_placement(problem) is None


def test_near_splits_give_every_cluster_devices_by_its_work():
    models = load(small()).models
    problem = Problem(models, Cluster(devices=64), Workload(np.zeros(1), np.zeros(1, np.int32)))
    groups = clusters(models)
    splits = list(near_splits(problem, groups))
    assert len(groups) == 2
    assert len(splits) == 3
    assert all(sum(split) == 64 and min(split) >= 1 for split in splits)


def test_separate_clusters_are_searched_as_mp_search_sep_does():
    problem = problem_of(small(), load(small()))
    (apart,) = search_apart(problem, 1e12, 1)
    assert max(apart.score, search(problem).score) == search_separated(problem).score
    assert search_separated(problem).placement.devices <= 8


def test_a_cluster_too_large_for_a_search_is_planned_by_pods_side_by_side(
    monkeypatch: pytest.MonkeyPatch,
):
    models = load(small()).models
    train = gamma_workload(models, duration=60)
    problem = Problem(models, Cluster(devices=16), train)
    monkeypatch.setattr("beta.plan.best.MOST_CUT", 1.0)
    monkeypatch.setattr("beta.plan.pods.MOST_CUT", looks(problem) / 4)
    chosen = best(problem, 0.1)
    assert {"mp-search", "sr-greedy"} <= set(chosen.left_out)
    verify(chosen.scored.placement, models, problem.cluster)
    for found in side_by_side(problem):
        groups = found.placement.groups
        assert groups[: len(groups) // 2] == groups[len(groups) // 2 :]
        assert found.good <= chosen.good
