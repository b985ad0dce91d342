"""Simulators: kernel against readable twin, and what every simulation keeps."""

from collections import deque
from heapq import heappop, heappush

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beta.inputs.model import MIX, Model, models_of
from beta.inputs.playing import Delays, Dispatch
from beta.inputs.profile import Config, read_profiles
from beta.inputs.workload import Workload, gamma_workload
from beta.plan.placement import Group, Placement, Timetable
from beta.simulate import batching, events, fast, readable, readable_batching
from beta.simulate.statistics import trimmed
from beta.simulate.tables import OVERHEAD_S, tables_of
from beta.simulate.windows import segments, simulate_timetable
from tests.beta.golden_inputs import profiles

PROFILES = read_profiles()
CONFIGS = [Config(op, pp) for op in (1, 2, 4) for pp in (1, 2, 4, 8) if op * pp <= 8]
Case = tuple[tuple[Model, ...], Placement, Workload]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    types = draw(st.lists(st.sampled_from(MIX), min_size=1, max_size=6))
    rates = [draw(st.floats(0.5, 12)) for _ in types]
    slo, cv = draw(st.sampled_from([1.2, 3, 8])), draw(st.sampled_from([0.5, 1, 4]))
    models = models_of(types, PROFILES, rates=rates, cv=cv, slo_scale=slo)
    subsets = st.sets(st.integers(0, len(types) - 1)).map(lambda s: tuple(sorted(s)))
    groups = draw(st.lists(st.tuples(st.sampled_from(CONFIGS), subsets), min_size=1, max_size=5))
    placement = Placement(tuple(Group(config, members) for config, members in groups))
    return models, placement, gamma_workload(models, duration=10, seed=draw(st.integers(0, 99)))


@given(cases(), st.sampled_from(["first_free", "deadline"]))
def test_compiled_simulator_equals_its_twin(case: Case, dispatch: Dispatch):
    models, placement, workload = case
    tables = tables_of(models, placement.configs())
    found = fast.simulate(workload, placement, tables, dispatch=dispatch)
    twin = readable.simulate(workload, placement, models, dispatch=dispatch)
    assert found.finish.tolist() == twin.finish.tolist()
    assert found.good.tolist() == twin.good.tolist()
    assert found.group.tolist() == twin.group.tolist()


@settings(max_examples=50)
@given(cases())
def test_every_request_is_answered_in_time_or_refused(case: Case):
    models, placement, workload = case
    slo = np.array([model.slo_s for model in models])[workload.model]
    hosted = {m for group in placement.groups for m in group.models}
    for found in (
        fast.simulate(workload, placement, tables_of(models, placement.configs())),
        batching.simulate(workload, placement, models),
        events.simulate(workload, placement, models),
    ):
        latency = found.finish - workload.arrival
        assert np.all(latency[found.good] <= slo[found.good] * (1 + 1e-6))
        assert not np.any(found.good & ~np.isin(workload.model, list(hosted)))
        assert np.all(latency >= 0)


@st.composite
def batches(draw: st.DrawFn) -> Case:
    early = profiles()["bert-1.3b-early"]
    configs = [config for config in early.records if config.devices <= 8]
    count = draw(st.integers(1, 4))
    models = tuple(
        Model(
            name=f"m{i}",
            profile=early,
            slo_s=draw(st.one_of(st.floats(0.1, 2), st.just(np.inf))),
            rate=draw(st.floats(1, 40)),
            cv=draw(st.sampled_from([1.0, 4.0])),
        )
        for i in range(count)
    )
    subsets = st.sets(st.integers(0, count - 1)).map(lambda s: tuple(sorted(s)))
    groups = draw(st.lists(st.tuples(st.sampled_from(configs), subsets), min_size=1, max_size=4))
    placement = Placement(tuple(Group(config, members) for config, members in groups))
    return models, placement, gamma_workload(models, duration=5, seed=draw(st.integers(0, 99)))


@settings(max_examples=50)
@given(batches(), st.booleans())
def test_compiled_batching_equals_its_twin(case: Case, idle_break: bool):
    models, placement, workload = case
    found = batching.simulate(workload, placement, models, idle_break=idle_break)
    twin = readable_batching.simulate(workload, placement, models, idle_break=idle_break)
    assert found.finish.tolist() == twin.finish.tolist()
    assert found.good.tolist() == twin.good.tolist()
    assert found.group.tolist() == twin.group.tolist()


def test_sizes_without_a_profile_are_not_batched_even_without_a_target():
    model = Model(name="m", profile=PROFILES["bert-1.3b"])
    placement = Placement((Group(Config(1, 2), (0,)),))
    workload = Workload(np.array([0.0, 0.01, 0.02, 0.03]), np.zeros(4, np.int32))
    found = batching.simulate(workload, placement, (model,))
    assert found.good.all()
    assert np.all(np.diff(found.finish) > 0.05)
    twin = readable_batching.simulate(workload, placement, (model,))
    assert found.finish.tolist() == twin.finish.tolist()


def pipeline_twin(arrival: list[float], stage_s: list[float], slo: float) -> list[bool]:
    """One model on one pipeline through admission and FIFO stages, by plain queues."""
    free, booked, good = [0.0] * len(stage_s), [0.0] * len(stage_s), []
    pending: list[tuple[float, int]] = []
    for i, came in enumerate(arrival):
        heappush(pending, (came + 0.005, i))
    order = deque(heappop(pending) for _ in range(len(arrival)))
    for now, i in order:
        ends, end = [], now
        for k, seconds in enumerate(stage_s):
            end = max(booked[k], end) + seconds
            ends.append(end)
        if end + 0.004 > arrival[i] + slo:
            good.append(False)
            continue
        booked, end = ends, now + 0.005
        for k, seconds in enumerate(stage_s):
            end = free[k] = max(free[k], end) + seconds
        good.append(end - arrival[i] <= slo)
    return good


@given(st.integers(0, 99), st.floats(1, 30), st.sampled_from([1, 2, 4, 8]))
def test_events_of_one_pipeline_equal_plain_queues(seed: int, rate: float, pp: int):
    models = models_of(["bert-1.3b"], PROFILES, rates=[rate], cv=2, slo_scale=3)
    workload = gamma_workload(models, duration=10, seed=seed)
    placement = Placement((Group(Config(1, pp), (0,)),))
    found = events.simulate(workload, placement, models, delays=Delays(deviation_s=0))
    stage_s = list(models[0].profile.records[Config(1, pp)].stage_s[1])
    twin = pipeline_twin(workload.arrival.tolist(), stage_s, models[0].slo_s)
    assert found.good.tolist() == twin


def test_deadline_dispatch_saves_what_the_first_free_replica_would_refuse():
    slow, quick = Config(1, 1), Config(4, 1)
    models = models_of(["bert-6.7b"], PROFILES, rates=[1], cv=1, slo_scale=0.6)
    placement = Placement((Group(slow, (0,)), Group(quick, (0,))))
    workload = Workload(np.array([0.0]), np.zeros(1, np.int32))
    tables = tables_of(models, placement.configs())
    assert fast.simulate(workload, placement, tables).good.tolist() == [False]
    assert fast.simulate(workload, placement, tables, dispatch="deadline").good.tolist() == [True]


def test_a_lone_request_takes_its_stages_and_the_overhead():
    models = models_of(["bert-1.3b"], PROFILES, rates=[1], cv=1, slo_scale=5)
    placement = Placement((Group(Config(1, 2), (0,)),))
    workload = Workload(np.array([3.0]), np.zeros(1, np.int32))
    tables = tables_of(models, placement.configs())
    stages = sum(models[0].profile.records[Config(1, 2)].stage_s[1])
    found = fast.simulate(workload, placement, tables)
    assert found.finish[0] == pytest.approx(3 + stages * 1.018 + OVERHEAD_S, rel=1e-6)


def two_windows() -> tuple[tuple[Model, ...], Timetable, Workload]:
    models = models_of(["bert-1.3b", "bert-2.6b"], PROFILES, rates=[1, 1], cv=1, slo_scale=5)
    one, other = (Placement((Group(Config(1, 1), (m,)),)) for m in (0, 1))
    workload = Workload(np.array([0.0, 1.0, 1.01, 2.0]), np.array([0, 0, 1, 1], np.int32))
    return models, Timetable((0.0, 1.01), (one, other)), workload


def test_windows_begin_with_their_first_request_unless_as_in_the_original():
    models, timetable, workload = two_windows()
    assert segments(workload, timetable, fresh=False) == [(0, 0), (2, 1)]
    assert segments(workload, timetable, fresh=True) == [(0, 0), (3, 1)]
    tables = tables_of(models, (Config(1, 1),))
    fresh = simulate_timetable(workload, timetable, tables, fresh=True)
    assert fresh.good.tolist() == [True, True, False, True]
    carried = simulate_timetable(workload, timetable, tables)
    assert carried.good.all()
    alone = 2.6e-1
    assert carried.finish[2] - workload.arrival[2] > alone  # waits for what the device still runs


def test_a_workload_shorter_than_its_warm_up_is_taken_whole():
    models, timetable, workload = two_windows()
    found = simulate_timetable(workload, timetable, tables_of(models, (Config(1, 1),)))
    assert trimmed(workload, found).requests == 4
    assert trimmed(workload[:1], fast.Outcome(*(c[:1] for c in found))).requests == 1
    assert trimmed(workload[:0], fast.Outcome(*(c[:0] for c in found))).goodput == 0
