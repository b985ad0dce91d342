"""Experiments, their workloads, suites and claims."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from beta.artifact import ARTIFACT
from beta.inputs.examples import small
from beta.inputs.load import load
from beta.paper import published
from beta.paper.derived import comparisons
from beta.paper.experiments import named
from beta.paper.grid import point_of, points
from beta.paper.points import answer
from beta.paper.suites import SUITES, how, suite_cases, suites
from beta.paper.sweeps import grids
from beta.plan.plans import Plan, check
from common.artifact import Case, with_field
from common.errors import InputError
from common.files import read_plan
from common.record import Metric, Record
from common.report import claims_of
from common.spread import spread


def values(case: Case) -> dict[str, float]:
    return {m.name: m.value for m in answer(case.experiment)}


def key_of(case: Case) -> published.Key:
    method, x = case.experiment.placement.method, float(case.marks["x"])
    return published.Key(case.experiment.name, str(case.marks["sweep"]), x, method)


def test_suites_name_figures_that_exist():
    everything = ARTIFACT.named()
    assert all(name in grids() and name in everything for s in SUITES.values() for name in s)
    assert {case.experiment.name for case in suites()["full"]} == set(SUITES["full"])
    assert len(suite_cases("quick")) == 54 + 54 + 75 + 20 + 87 + 1


def test_every_published_point_is_swept():
    swept = {key_of(case) for grid in grids().values() for case in points(grid)}
    missing = [
        key
        for key in published.points()
        if key.experiment != "fidelity-real"
        and key.sweep != "models"
        and (key.experiment, key.method) != ("s3-maf2", "mp-search")  # not in the figure
        and key not in swept
    ]
    assert missing == []


@pytest.mark.parametrize(
    ("name", "sweep", "x", "method"),
    [
        ("ablation", "rate", 64, "mp-greedy-4"),
        ("ablation", "cv", 8, "mp-round-robin"),
        ("ablation", "rate", 128, "mp-search-sep"),
        ("fidelity", "slo", 2, "mp-search"),
        ("fidelity", "slo", 2, "sr-greedy"),
    ],
)
def test_points_equal_the_published_digits(name: str, sweep: str, x: float, method: str):
    found = values(point_of(grids()[name], named()[name], sweep, x, method))
    expect = published.points()[published.Key(name, sweep, x, method)]
    assert round(found["attainment"], 3) == expect


@pytest.mark.slow
@pytest.mark.timeout(3600)  # up to 153 searches in one test
@pytest.mark.parametrize("name", ["ablation", "fidelity", "ablation-same", "ablation-same-bert"])
def test_all_points_equal_the_published_digits(name: str):
    wrong = []
    for case in points(grids()[name]):
        key = key_of(case)
        expect = published.points().get(key)
        if expect is not None and round(values(case)["attainment"], 3) != expect:
            wrong.append(key)
    assert wrong == []


def test_large_models_equal_the_originals_code_on_the_same_stand_in():
    for case in points(grids()["large"]):
        assert round(values(case)["attainment"], 6) == published.original_runs()[key_of(case)]


def test_the_same_question_has_the_same_answer():
    first, second = (answer(small()) for _ in range(2))
    assert [m for m in first if m.name != "search.time"] == [
        m for m in second if m.name != "search.time"
    ]
    assert len(load(small()).test) != len(load(small(), seed=1).test)


def test_training_is_what_the_experiment_says(tmp_path: Path):
    loaded = load(with_field(small(), "training.on", "same"))
    assert loaded.train is loaded.test
    half = with_field(with_field(small(), "training.on", "first"), "training.share", 0.5)
    assert len(load(half).train) == len(loaded.test) // 2


def test_ones_own_requests_are_read(tmp_path: Path):
    log = tmp_path / "log.csv"
    log.write_text("arrival_s,model\n5,bert-6.7b-0\n1,bert-1.3b-3\n2,bert-1.3b-3\n")
    traffic = msgspec.structs.replace(small().traffic, source="requests", path=str(log))
    loaded = load(msgspec.structs.replace(small(), traffic=traffic))
    assert loaded.test.arrival.tolist() == [0, 1, 4]
    assert loaded.test.model.tolist() == [3, 3, 8]
    assert loaded.models[3].rate == pytest.approx(2 / 4)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("5,who", "line 3: no model 'who'"),
        ("nan,bert-1.3b-0", "line 3: arrival_s is nan"),
        ("-1,bert-1.3b-0", "line 3: arrival_s is -1"),
        ("soon,bert-1.3b-0", "line 3: arrival_s is 'soon', expected seconds"),
        ("5", "line 3: no model None"),
    ],
)
def test_mistakes_in_ones_own_requests_are_named(tmp_path: Path, row: str, message: str):
    log = tmp_path / "log.csv"
    log.write_text(f"arrival_s,model\n1,bert-1.3b-0\n{row}\n")
    traffic = msgspec.structs.replace(small().traffic, source="requests", path=str(log))
    with pytest.raises(InputError, match=message):
        load(msgspec.structs.replace(small(), traffic=traffic))


@pytest.mark.parametrize(
    "periods", ["[]", '[{"start_s":0,"groups":[{"first_device":0,"op":0,"pp":1,"models":[]}]}]']
)
def test_plans_without_periods_or_degrees_are_refused(tmp_path: Path, periods: str):
    path = tmp_path / "plan.json"
    path.write_text(
        '{"experiment":"e","method":"m","devices":1,"memory_gib":1,"models":[],"attainment":1,'
        f'"periods":{periods}}}'
    )
    with pytest.raises(InputError, match="op and pp of 1 or more"):
        read_plan(path, Plan, check)


def test_traffic_may_jump_between_rates():
    traffic = msgspec.structs.replace(small().traffic, source="modulated", duration_s=5000.0)
    calm = msgspec.structs.replace(traffic, state_s=(9.0, 9.0), state_factors=(1.0, 1.0))
    jumps, even = (load(msgspec.structs.replace(small(), traffic=t)) for t in (traffic, calm))
    assert jumps.models[0].rate == even.models[0].rate == 1
    assert len(jumps.test) == len(even.test) == 8 * 5000 + 2 * 2500
    variance = [np.histogram(w.test.arrival, 500)[0].var() for w in (jumps, even)]
    assert variance[0] > 2 * variance[1]


def test_time_stamps_may_be_taken_as_they_are(tmp_path: Path):
    lines = ["app,func,end_timestamp,duration", "a,f,10,4", "a,g,9,1", "a,f,31,1"]
    (tmp_path / "trace.txt").write_text("\n".join(lines))
    pair = msgspec.structs.replace(small().models[0], count=2)
    traffic = msgspec.structs.replace(
        small().traffic,
        source="azure2021",
        path=str(tmp_path / "trace.txt"),
        end="0.0.1",
        gaps="recorded",
        time_scale=2.0,
        copies=2,
    )
    asked = msgspec.structs.replace(small(), models=(pair,), traffic=traffic)
    loaded = load(asked)
    assert loaded.test.arrival.tolist() == [3, 3, 4, 4, 15, 15]
    assert loaded.test.model.tolist() == [0, 0, 1, 1, 0, 0]
    assert [model.rate for model in loaded.models] == [4 / 30, 2 / 30]
    with pytest.raises(InputError, match="only has counts"):
        msgspec.structs.replace(traffic, source="azure2019")


def record(method: str, x: float, attainment: float) -> Record:
    return Record(
        artifact="beta",
        suite="quick",
        experiment="s1-maf1",
        case={"verb": "simulate", "method": method, "sweep": "devices", "x": x},
        origin="simulated",
        config={},
        case_id=f"{method}{x}",
        metrics=(Metric(name="attainment", value=attainment, unit="1"),),
    )


def test_comparisons_say_where_the_target_is_met_and_by_how_much():
    found = comparisons(
        [
            record("sr-greedy", 32, 0.98),
            record("sr-greedy", 40, 0.995),
            record("mp-search", 16, 0.9896),
            record("mp-search", 32, 0.999),
        ]
    )
    at = {(r.case["method"], r.case["sweep"], m.name): m.value for r in found for m in r.metrics}
    assert at["sr-greedy", "devices", "met99"] == 40
    assert at["mp-search", "devices", "met99"] == 32  # 0.9896 is not 99 %
    assert at["mp-search", "devices", "advantage"] == 1.25
    assert at["mp-search", "all", "lead.least"] == pytest.approx(0.019)


def test_claims_are_of_figures_in_their_suites():
    claims = claims_of(ARTIFACT)
    assert claims
    for claim in claims:
        assert all(claim.experiment in SUITES[suite] for suite in claim.suites), claim.id


def test_figures_processes_and_ray_are_asked_for_by_name():
    asked = how("full", ["figures=serve, large", "processes=3", "ray=auto"])
    assert (asked.claims, asked.processes, asked.ray) == (("serve", "large"), 3, "auto")
    assert [case.verb for case in asked.cases] == ["run"] + ["simulate"] * 75
    assert len(how("quick", []).cases) == len(suites()["quick"])
    with pytest.raises(InputError, match="processes is -1"):
        how("quick", ["processes=-1"])


def double(x: int) -> int:
    return 2 * x


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:port"])
def test_a_ray_cluster_that_is_not_there_is_a_users_mistake(address: str):
    with pytest.raises(InputError, match="no Ray cluster answers"):
        list(spread(double, [1], processes=1, ray=address))
