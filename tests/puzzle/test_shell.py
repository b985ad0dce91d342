"""Puzzle as a library, as a product without its paper, and as suites whose cases fail alone."""

import json
import os
import shutil
import subprocess
import sys
from ctypes import CDLL
from pathlib import Path

import msgspec
import pytest

import puzzle
from common.case import resolve
from common.teach import meanings, taught
from puzzle.inputs.cluster import known_clusters
from puzzle.inputs.experiment import Experiment
from puzzle.inputs.model import known_models
from puzzle.plan.answer import question
from puzzle.plan.plans import Plan

ROOT = Path(__file__).parents[2]
PATIENCE_S = 400.0

pytestmark = pytest.mark.timeout(900)


def python(*words: str, cwd: Path, home: Path = ROOT) -> subprocess.CompletedProcess[str]:
    kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(home), "COLUMNS": "160"},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def has_driver() -> bool:
    try:
        CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def test_the_library_plans_what_the_command_line_plans(tmp_path: Path):
    done = python("-m", "puzzle", "plan", "orion-13b-7b", "--method", "given", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "results/puzzle/plans/orion-13b-7b.given.json").read_bytes()
    ours = puzzle.plan(puzzle.load("orion-13b-7b"), method="given")
    assert msgspec.json.decode(written, type=Plan) == ours
    assert ours.question == question(puzzle.load("orion-13b-7b", "method=given"), 0)


def test_the_library_writes_nothing_where_no_folder_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    experiment = puzzle.load("align-7b-7b", "devices=4", "method=given", "choice.training.data=4",
                             "choice.generation.data=4", "choice.schedule=sequential")  # fmt: skip
    outcome = puzzle.simulate(experiment, puzzle.plan(experiment))
    assert {metric.name for metric in outcome.metrics} >= {"step.time", "timeline.training"}
    assert outcome.files == ()
    assert list(tmp_path.iterdir()) == []


def test_a_simulation_is_drawn_with_a_panel_for_each_stage_of_passes():
    figure = puzzle.simulate(puzzle.load("orion-7b-7b", "method=released")).figure()
    assert [axes.get_title() for axes in figure.axes] == ["training", "inference"]
    assert all(axes.collections for axes in figure.axes)


@pytest.mark.slow
def test_a_run_of_the_library_is_drawn_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    outcome = puzzle.run(puzzle.load("tiny-cpu-2", "running.steps=2", "work.answer=4"))
    assert "2 steps on 2 gloo ranks" in outcome.summary
    above, below = outcome.figure().axes
    assert len(above.patches) == 2 * 3  # steps x stages
    assert len(below.lines[0].get_xdata()) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_plan_of_another_question_is_not_taken_for_this_one():
    mine = puzzle.load("orion-7b-7b")
    same = puzzle.load("orion-7b-7b", "running.steps=9", "ppo.kl=0.2")
    assert question(mine, 0) == question(same, 1)
    for change in ("method=given", "devices=8", "actor=13b", "work.batch=128", "cluster=phoenix"):
        assert question(puzzle.load("orion-7b-7b", change), 0) != question(mine, 0), change


@pytest.mark.parametrize("everything", [False, True])
def test_every_experiments_inputs_read_back_equal(everything: bool, tmp_path: Path):
    for name, experiment in puzzle.experiments().items():
        path = tmp_path / f"{name}.toml"
        path.write_text(taught(experiment, everything=everything))
        assert resolve(str(path), {}, Experiment) == experiment, name


def test_inputs_name_every_model_and_cluster_that_is_known():
    said = meanings(Experiment)
    assert [name for name in known_models() if name not in said["actor"]] == []
    assert [name for name in known_models() if name not in said["critic"]] == []
    assert [name for name in known_clusters() if name not in said["cluster"]] == []


def test_a_case_that_fails_costs_neither_the_others_nor_the_report(tmp_path: Path):
    """A file stands where the folder of plans is to be: planning fails, simulating does not."""
    (tmp_path / "results/puzzle").mkdir(parents=True)
    in_the_way = tmp_path / "results/puzzle/plans"
    in_the_way.write_text("")
    quick = ("-m", "puzzle", "quick", "--only", "orion-7b-350m")
    done = python(*quick, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    records = [
        json.loads(line)
        for line in (tmp_path / "results/puzzle/quick.jsonl").read_text().splitlines()
    ]
    found = [(r["case"]["verb"], r["case"]["method"], r.get("status", "ok")) for r in records]
    assert sorted(found) == [
        ("plan", "auto", "failed"),
        ("plan", "given", "failed"),
        ("simulate", "generation", "ok"),
        ("simulate", "given", "ok"),
        ("simulate", "released", "ok"),
    ]
    assert "failed: plan orion-7b-350m (auto): FileExistsError" in done.stdout
    assert "python -m puzzle quick --again --only orion-7b-350m" in done.stdout
    assert "orion-7b-350m" in (tmp_path / "results/report.html").read_text()
    in_the_way.unlink()
    again = python(*quick, cwd=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "3 finished cases are kept" in again.stderr


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the package as it is without its paper."""
    home = tmp_path_factory.mktemp("product")
    ignored = shutil.ignore_patterns("__pycache__", "paper")
    shutil.copytree(ROOT / "puzzle", home / "puzzle", ignore=ignored)
    shutil.copytree(ROOT / "common", home / "common", ignore=shutil.ignore_patterns("__pycache__"))
    return home


def test_the_product_lists_plans_simulates_and_reports_without_its_paper(
    product: Path, tmp_path: Path
):
    listed = python("-m", "puzzle", "list", cwd=tmp_path, home=product)
    assert listed.returncode == 0, listed.stderr
    assert "align-7b-7b" in listed.stdout
    assert "orion-7b-7b" not in listed.stdout
    for verb in ("plan", "simulate"):
        done = python("-m", "puzzle", verb, "align-7b-7b", cwd=tmp_path, home=product)
        assert done.returncode == 0, done.stderr
        assert "s a step predicted" in done.stdout
    reported = python("-m", "puzzle", "report", cwd=tmp_path, home=product)
    assert reported.returncode == 0, reported.stderr


@pytest.mark.slow
def test_the_product_aligns_without_its_paper(product: Path, tmp_path: Path):
    short = ("--set", "running.steps=2", "--set", "work.answer=4")
    done = python("-m", "puzzle", "run", "tiny-cpu-2", *short, cwd=tmp_path, home=product)
    assert done.returncode == 0, done.stderr
    assert "2 steps on 2 gloo ranks" in done.stdout


@pytest.mark.skipif(has_driver(), reason="a CUDA driver is here: its GPUs are counted by torch")
def test_the_suites_are_told_without_torch_where_no_gpu_is(tmp_path: Path):
    code = (
        "import sys; from puzzle.paper.suites import suites; cases = list(suites()['full']);"
        " print(len(cases), 'torch' in sys.modules)"
    )
    done = python("-c", code, cwd=tmp_path)
    assert done.stdout.split() == ["116", "False"], done.stderr


def test_a_folder_of_logs_is_listed_with_what_does_not_fit(tmp_path: Path):
    (tmp_path / "logs").mkdir()
    line = (
        "|E2E latency=25.04s |Gather latency=1.13s (4.52%) |Generate time=16.06s (64.13%)"
        " |Training time=6.44s (25.72%) |Others=2.54 (10.15%)|CurSamplesPerSec=5.11\n"
    )
    (tmp_path / "logs/llama_7b_350m_dschat_2024-01-12T00.log").write_text(2 * line)
    (tmp_path / "logs/cut.log").write_text("begun\n")
    done = python("-m", "puzzle", "inputs", "logs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "25.0400" in done.stdout
    assert "does not fit: logs/cut.log: no step lines" in done.stdout
    assert "1 anomalies" in done.stdout


@pytest.mark.slow
def test_a_profile_is_an_experiment_to_plan_with(tmp_path: Path):
    done = python("-m", "puzzle", "profile", "tiny-cpu-2", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (file,) = json.loads(done.stdout)["files"]
    measured = resolve(str(tmp_path / file), {}, Experiment)
    assert measured.machines.constants != known_clusters()["cpu"].constants
    planned = python("-m", "puzzle", "plan", file, cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
