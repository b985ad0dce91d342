"""Helix behind the shell: failures alone, the library, plans without a folder, no paper/."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numba.core.errors import TypingError
from typer.testing import CliRunner

import helix
from common.artifact import Ask, Case, Folder
from common.errors import CaseError, InputError
from common.plans import plan_for
from common.record import Record
from common.verbs import app_of
from helix.artifact import ARTIFACT
from helix.plan.answer import question, stem
from helix.plan.bare import bare
from helix.run.prepare import prepare
from helix.simulate.sweep import points

ROOT = Path(__file__).parents[2]
SHORT = ("workload.duration_s=30", "workload.warm_up_s=10")
SET = [word for change in SHORT for word in ("--set", change)]


def command(*words: str, out: Path):
    return CliRunner().invoke(app_of(ARTIFACT), [*words, "--out", str(out)])


def records(out: Path, suite: str) -> list[Record]:
    return Folder(out, "helix").records(suite).read()


def values(metrics) -> dict[str, float]:
    return {metric.name: metric.value for metric in metrics}


@pytest.mark.timeout(300)
def test_a_case_that_cannot_write_its_plan_leaves_the_suite_and_the_report_whole(tmp_path: Path):
    pytest.importorskip("jinja2")
    swarm = helix.experiments()["geo-placement-swarm"]
    in_the_way = Folder(tmp_path, "helix").at("plans", f"{stem(swarm, 0)}.json")
    in_the_way.mkdir(parents=True)
    done = command("quick", "--only", "geo-placement-*", out=tmp_path)
    assert done.exit_code == 1
    found = {record.experiment: record for record in records(tmp_path, "quick")}
    assert {name: record.status for name, record in found.items()} == {
        "geo-placement-helix": "ok",
        "geo-placement-petals": "ok",
        "geo-placement-swarm": "failed",
    }
    assert str(found["geo-placement-swarm"].error).startswith("IsADirectoryError")
    page = (tmp_path / "report.html").read_text()
    assert "IsADirectoryError" in page
    assert "one placement or scheduler for another" in page
    assert "repeat: python -m helix quick --again --only geo-placement-swarm" in done.stdout

    in_the_way.rmdir()
    again = command("quick", "--again", "--only", "geo-placement-swarm", out=tmp_path)
    assert [r.status for r in records(tmp_path, "quick")][3:] == ["ok"]
    assert again.exit_code == 0, again.stdout


@pytest.mark.timeout(300)
def test_a_point_of_a_sweep_that_has_no_plan_costs_no_other(tmp_path: Path):
    sweep = 'sweep={"search.stages"=[20, 7], "workload.initial"=[10, 20]}'
    done = command("simulate", "geo-placement-swarm", *SET, "--set", sweep, out=tmp_path)
    assert done.exit_code == 1, done.stdout
    found = {(r.case["search.stages"], r.case["workload.initial"]): r for r in
             records(tmp_path, "own")}  # fmt: skip
    assert {point: record.status for point, record in found.items()} == {
        (20, 10): "ok",
        (20, 20): "ok",
        (7, 10): "failed",
        (7, 20): "failed",
    }
    assert found[7, 10].error == "swarm: 80 layers do not divide into 7 stages"
    rows = [line.split("│")[1:4] for line in done.stdout.splitlines() if "│" in line]
    points = [(cells[0].strip(), cells[1].strip()) for cells in rows]
    assert [p for p in points if p[0]] == [("20", "10"), ("20", "20"), ("7", "10"), ("7", "20")]
    alone = helix.load("geo-placement-swarm", *SHORT, "workload.initial=10")
    one = helix.simulate(alone)
    assert values(one.metrics) == values(found[20, 10].metrics)


def test_points_differ_in_the_swept_fields_and_seeds_only():
    asked = helix.load("geo-placement-swarm", 'sweep={seed=[3, 4], "workload.initial"=[5]}')
    how = points(Case(verb="simulate", experiment=asked), Ask())
    assert how is not None
    assert [(case.seed, case.marks) for case in how.cases] == [
        (3, {"seed": 3, "workload.initial": 5}),
        (4, {"seed": 4, "workload.initial": 5}),
    ]
    plain = helix.load("geo-placement-swarm", "workload.initial=5")
    assert all(case.experiment == plain for case in how.cases)
    assert len({case.id for case in how.cases}) == 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sweep_over_ray_gives_what_it_gives_over_processes(tmp_path: Path):
    words = ("geo-placement-swarm", *SET, "--set", 'sweep={"workload.initial"=[10, 20]}')
    there, here = tmp_path / "ray", tmp_path / "processes"
    assert command("simulate", *words, "--ray", "local", out=there).exit_code == 0
    assert command("simulate", *words, out=here).exit_code == 0
    found = [{r.case_id: values(r.metrics) for r in records(out, "own")} for out in (there, here)]
    assert found[0] == found[1]
    assert len(found[0]) == 2


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ((), {"ray": "auto"}, "--ray auto spreads a sweep, but geo-placement-swarm has none"),
        (("sweep.seed=[0]", "workload.timeline_s=2"), {}, "no timelines are written"),
        (("sweep.seed=[true]",), {}, "seed is True"),
    ],
)
def test_what_would_be_ignored_of_a_sweep_is_refused(changes, options, said: str):
    case = Case(verb="simulate", experiment=helix.load("geo-placement-swarm", *changes))
    with pytest.raises(InputError, match=said):
        points(case, Ask(options=options))


@pytest.mark.timeout(300)
def test_the_library_answers_as_the_command_line_does(tmp_path: Path):
    words = ("geo-placement-petals", *SET)
    assert command("plan", *words, out=tmp_path).exit_code == 0
    assert command("simulate", *words, out=tmp_path).exit_code == 0
    experiment = helix.load("geo-placement-petals", *SHORT)
    plan = helix.plan(experiment)
    (path,) = (tmp_path / "helix" / "plans").glob("*.json")
    assert path.stem == stem(experiment, 0)
    written = json.loads(path.read_text()) | {"seconds": plan.seconds}
    assert msgspec.json.decode(msgspec.json.encode(plan)) == written
    outcome = helix.simulate(experiment, plan)
    planned, simulated = records(tmp_path, "own")
    assert planned.case == {
        "verb": "plan", "method": "petals", "objective": "", "scheduler": "maxflow",
        "mode": "offline", "compat": True,
    }  # fmt: skip
    assert values(outcome.metrics) == values(simulated.metrics)


@pytest.mark.timeout(300)
def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also where this machine has to be measured first."""
    monkeypatch.chdir(tmp_path)
    played = helix.load("played-swarm-offline", *SHORT)
    plan = helix.plan(played)
    assert plan.method == "swarm"
    outcome = helix.simulate(played, plan)
    assert values(outcome.metrics)["decode.throughput"] > 0
    pytest.importorskip("matplotlib")
    figure = outcome.figure()
    assert [axes.get_xlabel() for axes in figure.axes][1:] == [
        "prompt latency, s",
        "decode latency, s",
    ]
    used = [runs for service in plan.services for runs in service.intervals if runs != (0, 0)]
    assert len(figure.axes[0].patches) == len(used)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_asked_for_needs_a_folder():
    asked = helix.load("geo-placement-swarm", "workload.timeline_s=1")
    with pytest.raises(InputError, match="there is no folder for it"):
        helix.simulate(asked)


def test_another_seed_is_another_question_and_another_workload_is_not():
    asked = helix.experiments()["geo-placement-swarm"]
    other = helix.load("geo-placement-swarm", "workload.initial=7", "serve.port=9")
    assert question(asked, 0) == question(other, 0) != question(asked, 1)
    assert stem(asked, 0) == stem(other, 0) != stem(asked, 1)
    slashed = helix.load("my-cluster", "model.name=meta/llama")
    assert stem(slashed, 0).startswith("meta-llama-portfolio-")
    judged = helix.load("my-cluster", "workload.duration_s=60")  # the portfolio's workload judges
    assert question(judged, 0) != question(helix.load("my-cluster"), 0)


def test_plans_of_two_seeds_stand_beside_each_other(tmp_path: Path):
    folder = Folder(tmp_path, "helix")
    asked = helix.experiments()["geo-placement-petals"]
    for seed in (0, 1, 0):
        plan = plan_for(ARTIFACT, Case(verb="simulate", experiment=asked, seed=seed),
                        Ask(folder=folder))  # fmt: skip
        assert plan.seed == seed
    assert len(list(folder.at("plans").iterdir())) == 2


@pytest.mark.parametrize("method", ["petals", "homogeneous"])
def test_a_right_question_without_a_placement_is_a_failed_case(method: str):
    apart = helix.load("my-cluster", "cluster.default_link={gbit_per_s=0}")
    with pytest.raises(CaseError):
        helix.plan(apart, method=method)


def test_a_run_takes_the_device_asked_for_and_is_refused_before_it_is_measured():
    case = Case(verb="run", experiment=helix.load("my-cluster"))
    found = prepare(case, Ask(options={"backend": "cuda", "world_size": 13}))
    assert found.experiment.serve.device == "cuda"
    with pytest.raises(InputError, match="the experiment's cluster has 13 machines"):
        prepare(case, Ask(options={"world_size": 2}))


def test_making_an_array_in_a_bare_function_is_a_compile_time_error():
    """What it says of references counts: plain compiled code may make one."""

    @bare
    def zeros(count: int) -> float:
        return np.zeros(count).sum()

    with pytest.raises(TypingError):
        zeros(3)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_product_works_with_the_paper_taken_out(tmp_path: Path):
    for package in ("common", "helix"):
        shutil.copytree(ROOT / package, tmp_path / package)
    shutil.rmtree(tmp_path / "helix" / "paper")
    # A copy's kernels are compiled anew, for a minute where the whole portfolio answers.
    changes = ("--set", "search.method=petals", *SET)

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "helix", *words],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    names = [line.split()[0] for line in run("list").splitlines()]
    assert names == ["my-cluster", "my-llama", "serve-tiny"]
    assert "[model.shape]" in run("inputs", "serve-tiny")
    assert "tokens/s" in run("plan", "my-cluster", *changes)
    assert "decoded tokens/s" in run("simulate", "my-cluster", *changes)
