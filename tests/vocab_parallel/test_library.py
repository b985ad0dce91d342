"""The package as a library, its suites when a case fails, and the product without its paper."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vocab_parallel
from common.artifact import Ask, Case, Folder, with_field
from common.report import write_report
from common.suites import How, do_all
from vocab_parallel.artifact import ARTIFACT
from vocab_parallel.inputs.examples import examples
from vocab_parallel.inputs.experiment import Experiment

pytestmark = pytest.mark.timeout(400)  # real ranks: a busy machine takes long to start them
ROOT = Path(__file__).parents[2]
SMALL = ("model.layers=4", "pipeline.batches=4", "training.steps=2", "pipeline.method=vocab-2")


def vocab(*words: str, cwd: Path, root: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "vocab_parallel", *words],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=390,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_without_a_folder_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    experiment = vocab_parallel.load("tiny-cpu-2", *SMALL)
    plan = vocab_parallel.plan(experiment)
    outcome = vocab_parallel.simulate(experiment, plan)
    assert outcome.plan == plan
    assert {axes.get_xlabel() for axes in outcome.figure().axes} == {"time in the iteration, ms"}
    assert list(tmp_path.iterdir()) == []


def test_the_library_answers_as_the_command_line_does(tmp_path: Path) -> None:
    for method in ("auto", "redis"):
        experiment = vocab_parallel.load("multilingual-8", f"pipeline.method={method}")
        ours = vocab_parallel.plan(experiment)
        words = ("multilingual-8", "--set", f"pipeline.method={method}", "--json")
        theirs = json.loads(vocab("plan", *words, cwd=tmp_path))
        assert theirs["plan"]["method"] == ours.method
        assert theirs["plan"]["layers"] == list(ours.layers)
        assert theirs["plan"]["question"] == ours.question
        simulated = json.loads(vocab("simulate", *words, cwd=tmp_path))
        found = {
            metric.name: metric.value for metric in vocab_parallel.simulate(experiment).metrics
        }
        assert {m["name"]: m["value"] for m in simulated["metrics"]} == found


def test_a_run_measures_and_draws_what_its_pass_times_make() -> None:
    outcome = vocab_parallel.run(vocab_parallel.load("tiny-cpu-2", *SMALL), backend="gloo")
    values = {metric.name: metric.value for metric in outcome.metrics}
    assert values["iteration.predicted"] == outcome.value.iteration_s
    assert outcome.figure().axes


def test_a_case_that_fails_leaves_the_others_and_the_report_whole(tmp_path: Path) -> None:
    """A training that diverges on its rank, and a model that no method fits into memory."""

    def case(verb: str, name: str, method: str, **fields: object) -> Case:
        experiment = with_field(ARTIFACT.named()[name], "pipeline.method", method)
        for path, value in fields.items():
            experiment = with_field(experiment, path.replace("__", "."), value)
        return Case(verb=verb, experiment=experiment)

    cases = (
        case("simulate", "paper-2048-32k", "baseline"),
        case("run", "tiny-cpu-1", "baseline", training__learning_rate=1e30),
        case("plan", "seed-4096-256k", "auto", model__hidden=49152),
        case("simulate", "paper-2048-32k", "vocab-1"),
    )
    folder = Folder(tmp_path, "vocab_parallel")
    failed = do_all(
        ARTIFACT, How(cases=cases), folder, Ask(folder=folder, suite="quick"), again=False
    )
    assert [record.experiment for record in failed] == ["tiny-cpu-1", "seed-4096-256k"]
    told = write_report(ARTIFACT, folder, "quick")
    verdicts = {verdict.id: verdict.verdict for verdict in told.verdicts}
    assert not told.holds
    assert verdicts["paper-2048-32k-baseline-mfu"] == "pass"
    assert verdicts["paper-2048-32k-vocab-1-mfu"] == "pass"
    page = Path(told.page).read_text()
    assert "training diverged" in page
    assert "no method fits into 80 GiB" in page
    assert "quick --again --only tiny-cpu-1" in page


def test_a_suite_draws_only_the_quick_experiment() -> None:
    from vocab_parallel.paper.experiments import QUICK, suites

    for cases in suites().values():
        drawn = {case.experiment.name for case in cases if case.marks.get("drawn")}
        assert drawn == {QUICK}
        assert all("drawn" in case.marks for case in cases if case.verb == "simulate")


@pytest.mark.slow
def test_the_product_works_without_its_paper(tmp_path: Path) -> None:
    for package in ("common", "vocab_parallel"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.rmtree(tmp_path / "vocab_parallel/paper")
    artifact = tmp_path / "vocab_parallel/artifact.py"
    kept = [line for line in artifact.read_text().splitlines() if ".paper." not in line]
    artifact.write_text("\n".join(kept) + "\n")
    listed = vocab("list", cwd=tmp_path, root=tmp_path)
    assert [line.split()[0] for line in listed.splitlines()] == [*examples()]
    small = [word for change in SMALL for word in ("--set", change)]
    for verb in ("plan", "simulate", "run"):
        vocab(verb, "tiny-cpu-2", *small, cwd=tmp_path, root=tmp_path)
    assert (tmp_path / "results/vocab_parallel/plans/tiny-cpu-2.vocab-2.json").is_file()


def test_loading_reads_the_megatron_arguments_that_an_experiment_names(tmp_path: Path) -> None:
    script = tmp_path / "train.sh"
    script.write_text(
        "pretrain_gpt.py --num-layers 6 --hidden-size 64 --num-attention-heads 4"
        " --seq-length 32 --vocab-size 1000 --pipeline-model-parallel-size 3 --micro-batch-size 1"
    )
    found: Experiment = vocab_parallel.load("tiny-cpu-2", f"megatron={script}")
    assert (found.model.layers, found.model.vocabulary, found.pipeline.ranks) == (6, 1024, 3)
