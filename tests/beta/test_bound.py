"""The bound against every placement of small questions, played by the simulator asked."""

from collections.abc import Iterator
from itertools import combinations_with_replacement, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beta.inputs.cluster import GIB, Cluster
from beta.inputs.model import Model
from beta.inputs.playing import Delays, SimulatorSettings
from beta.inputs.profile import SINGLE, Config, Profile, Record
from beta.inputs.workload import Workload
from beta.plan.bound import fluid_work, upper_bound
from beta.plan.placement import Group, Placement, Timetable, used_bytes
from beta.plan.problem import Problem
from beta.simulate.play import play

KINDS = ("fast", "batching", "events")
NO_DELAYS = Delays(http_s=0, dispatch_s=0, backend_s=0, deviation_s=0, margin_s=0)


def profile(name: str, seconds: float, gib: float) -> Profile:
    """Return a model of one or two devices, op or pp, with batches that pay."""

    def record(parts: int, stages: int, gain: float) -> Record:
        stage = {b: (seconds * gain * b**0.5 / stages,) * stages for b in (1, 2, 4)}
        return Record(stage_s=stage, weight_bytes=(gib * GIB / parts,) * stages)

    records = {SINGLE: record(1, 1, 1.0), Config(2, 1): record(2, 1, 0.6)}
    return Profile(model=name, records=records | {Config(1, 2): record(2, 2, 1.05)})


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    models = tuple(
        Model(
            name=name,
            profile=profile(name, draw(st.floats(0.05, 0.5)), draw(st.sampled_from([1, 3]))),
            slo_s=draw(st.sampled_from([0.1, 0.3, 1.0])),
        )
        for name in "ab"
    )
    count = draw(st.integers(1, 12))
    times = np.sort([draw(st.floats(0, 2)) for _ in range(count)])
    asked = np.array([draw(st.sampled_from([0, 1])) for _ in range(count)], np.int32)
    delays = draw(st.sampled_from([Delays(), NO_DELAYS]))
    playing = SimulatorSettings(kind=draw(st.sampled_from(KINDS)), delays=delays)
    cluster = Cluster(devices=draw(st.integers(1, 3)), memory_bytes=2 * GIB)
    return Problem(models, cluster, Workload(times, asked), playing=playing)


def placements(problem: Problem) -> Iterator[Placement]:
    """Yield every placement up to the order of groups, which only breaks ties."""
    configs = [*problem.models[0].profile.records]
    options = [
        group
        for config in configs
        for models in ((), (0,), (1,), (0, 1))
        if used_bytes(group := Group(config, models), problem.models)
        <= problem.cluster.memory_bytes
    ]
    for count in range(1, problem.cluster.devices + 1):
        for groups in combinations_with_replacement(options, count):
            if sum(g.config.devices for g in groups) <= problem.cluster.devices:
                yield Placement(groups)


def attainment(problem: Problem, placement: Placement) -> float:
    outcome = play(
        problem.train, Timetable((0.0,), (placement,)), problem.models, problem.playing,
        problem.switches, seed=problem.seed,
    )  # fmt: skip
    return float(outcome.good.mean())


@settings(max_examples=60, deadline=None)
@given(problems())
def test_no_placement_at_all_passes_the_bound_of_its_simulator(problem: Problem):
    best = max(attainment(problem, placement) for placement in placements(problem))
    assert best <= upper_bound(problem).attainment + 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_where_nothing_fits_the_bound_is_nothing(kind: str):
    playing = SimulatorSettings(kind=kind)  # type: ignore[arg-type]
    model = Model(name="a", profile=profile("a", 0.1, 5), slo_s=1.0)
    train = Workload(np.arange(10.0), np.zeros(10, np.int32))
    for memory, slo in ((2, 1.0), (8, 0.05)):  # neither in memory; nor in time
        cluster = Cluster(devices=3, memory_bytes=memory * GIB)
        asked = Model(name="a", profile=model.profile, slo_s=slo)
        assert upper_bound(Problem((asked,), cluster, train, playing=playing)).attainment == 0
    cluster = Cluster(devices=3, memory_bytes=8 * GIB)
    assert upper_bound(Problem((model,), cluster, train, playing=playing)).attainment == 1


def test_what_batches_can_answer_is_not_bounded_by_what_single_requests_take():
    # Four at once every second: a batch takes 0.2 s, one after the other 0.4 s for 0.3 s of time.
    model = Model(name="a", profile=profile("a", 0.1, 1), slo_s=0.3)
    train = Workload(np.repeat(np.arange(5.0), 4), np.zeros(20, np.int32))
    bounds = dict[str, float]()
    for kind in ("fast", "batching"):
        playing = SimulatorSettings(kind=kind)
        problem = Problem((model,), Cluster(devices=1), train, playing=playing)
        bounds[kind] = upper_bound(problem).attainment
        found = attainment(problem, Placement((Group(SINGLE, (0,)),)))
        assert found <= bounds[kind]
    assert bounds["batching"] == 1
    assert bounds["fast"] < 0.75


@pytest.mark.parametrize("late", [0.0, 14 * 86400.0, 1.7e9])
def test_fluid_work_ends_however_late_the_clock_is(late: float):
    arrival = late + np.arange(1000) * 0.25
    for work in (fluid_work.py_func, fluid_work):
        done = work(arrival, arrival + 0.5, np.full(1000, 0.05), 512.0)
        assert done == pytest.approx(50, rel=1e-3)


def test_products_of_groups_are_all_counted():
    model = Model(name="a", profile=profile("a", 0.1, 1), slo_s=1.0)
    train = Workload(np.zeros(1), np.zeros(1, np.int32))
    problem = Problem((model, model), Cluster(devices=2), train)
    found = {p.groups for p in placements(problem)}
    singles = [Group(SINGLE, models) for models in ((), (0,), (1,), (0, 1))]
    pairs = {tuple(sorted(pair, key=singles.index)) for pair in product(singles, repeat=2)}
    assert pairs <= found
    assert len(found) == len(pairs) + 3 * 4
