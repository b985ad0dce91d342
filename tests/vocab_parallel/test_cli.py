"""The command line as a user calls it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(400)  # real ranks: a busy machine takes long to start them
ROOT = Path(__file__).parents[2]
SMALL = (
    "--set", "model.layers=4", "--set", "pipeline.batches=4", "--set", "training.steps=2",
    "--set", "model.hidden=16", "--set", "model.sequence=8", "--set", "model.vocabulary=50",
)  # fmt: skip


def vocab(
    *words: str, cwd: Path, module: tuple[str, ...] = ("-m", "vocab_parallel")
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *module, *words],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=390,
    )


def records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_users_toml_goes_from_inputs_to_plan_to_simulation_to_report(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(vocab("inputs", "seed-4096-256k", cwd=tmp_path).stdout)
    planned = vocab("plan", "mine.toml", "--set", "name=mine", cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
    assert "baseline" in planned.stdout
    assert "rank  7: IF0" in planned.stdout or "rank  7: F0" in planned.stdout
    file = "results/vocab_parallel/plans/mine.auto.json"
    simulated = vocab("simulate", "mine.toml", "--plan", file, cwd=tmp_path)
    assert simulated.returncode == 0, simulated.stderr
    assert list((tmp_path / "results/vocab_parallel/figures").glob("*.svg"))
    found = records(tmp_path / "results/vocab_parallel/own.jsonl")
    assert [record["origin"] for record in found] == ["planned", "simulated"]
    reported = vocab("report", cwd=tmp_path)
    assert reported.returncode == 0, reported.stderr
    assert "Vocabulary Parallelism" in (tmp_path / "results/report.html").read_text()


def test_run_starts_its_own_ranks(tmp_path: Path) -> None:
    done = vocab(
        "run", "tiny-cpu-2", "--world-size", "2", "--backend", "gloo",
        "--set", "pipeline.method=vocab-2", *SMALL, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 steps on 2 gloo ranks by vocab-2" in done.stdout
    (record,) = records(tmp_path / "results/vocab_parallel/own.jsonl")
    assert record["origin"] == "measured"


def test_torchrun_runs_the_same_and_tells_once(tmp_path: Path) -> None:
    words = ("run", "tiny-cpu-2", "--backend", "gloo", "--set", "pipeline.method=vocab-1", *SMALL)
    started = vocab(
        "--standalone", "--nproc-per-node", "2", "-m", "vocab_parallel", *words,
        cwd=tmp_path, module=("-m", "torch.distributed.run"),
    )  # fmt: skip
    assert started.returncode == 0, started.stderr
    assert started.stdout.count("2 steps on 2 gloo ranks by vocab-1") == 1
    assert len(records(tmp_path / "results/vocab_parallel/own.jsonl")) == 1


def test_profile_writes_an_experiment_that_plans(tmp_path: Path) -> None:
    done = vocab("profile", "tiny-cpu-2", *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    file = "results/vocab_parallel/profiles/tiny-cpu-2.toml"
    planned = vocab("plan", file, cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("plan", "tiny-cpu-2", "--set", "pipeline.tensor_parallel=3"),
            "tensor_parallel is 3, which does not divide",
        ),
        (("plan", "nothing"), "neither an experiment nor a TOML file"),
        (("plan", "tiny-cpu-2", "--method", "best"), "--method is 'best', expected one of"),
        (("plan", "tiny-cpu-2", "--set", "model.layers=many"), "model.layers"),
        (("plan", "tiny-cpu-2", "--set", "model.heads=3"), "does not divide"),
        (("plan", "tiny-cpu-2", "--method", "vocab-1", "--set", "model.layers=1"), "cannot fill 2"),
        (("plan", "tiny-cpu-4", "--set", "model.layers=2"), "no method has a plan: 2 layers"),
        (("plan", "seed-4096-256k", "--set", "model.hidden=49152"), "no method fits"),
        (("plan", "tiny-cpu-2", "--set", "machine=h900"), "machine is 'h900'"),
        (("simulate", "tiny-cpu-2", "--plan", "no.json"), "no such plan file"),
        (("run", "tiny-cpu-2", "--world-size", "3"), "3 ranks were given"),
        (("run", "tiny-cpu-2", "--backend", "mpi"), "expected gloo or nccl"),
        (("run", "tiny-cpu-2", "--set", "training.tokens=no.npy"), "no such file"),
        (("run", "multilingual-8", "--backend", "gloo"), "run on GPUs with --backend nccl"),
        (("run", "tiny-cpu-2", "--set", "training.kernel=triton"), "leave it at 'torch'"),
        (
            (
                "run",
                "tiny-cpu-2",
                *SMALL,
                "--set",
                "training.kernel=triton",
                "--set",
                "pipeline.method=naive",
            ),
            "an S of two parts",
        ),
        (
            ("run", "tiny-cpu-2", "--set", f"training.checkpoint={__file__}"),
            "name a folder",
        ),
        (("plan", "tiny-cpu-2", "--set", "training.betas=[1.0,0.5]"), "training.betas is [1.0"),
        (("plan", "tiny-cpu-2", "--set", "pipeline.layers=[9,-1]"), "has a negative number"),
        (
            ("plan", "tiny-cpu-2", "--set", "pipeline.forward_cost=3"),
            "pipeline.forward_cost is 3.0",
        ),
        (
            ("run", "tiny-cpu-1", *SMALL, "--set", "training.learning_rate=1e30"),
            "training diverged; lower training.learning_rate",
        ),
        (("report",), "no records"),
        (("report", "slow"), "no suite 'slow'"),
        (("quick", "--set", "a=1"), "quick is a fixed suite"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = vocab(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if not line.startswith("INFO")]
    assert len(errors) == 1, done.stderr
    assert message in errors[0]


@pytest.mark.slow
@pytest.mark.timeout(800)
def test_quick_holds_every_claim_and_a_second_one_skips_all(tmp_path: Path) -> None:
    done = vocab("quick", "--out", "res", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "177 of 177 claims hold" in done.stdout
    total = len(records(tmp_path / "res/vocab_parallel/quick.jsonl"))
    again = vocab("quick", "--out", "res", cwd=tmp_path)
    assert again.returncode == 0
    assert len(records(tmp_path / "res/vocab_parallel/quick.jsonl")) == total


def test_a_wrong_figure_fails_its_claim_and_exits_1(tmp_path: Path) -> None:
    done = vocab("simulate", "paper-2048-32k", "--set", "pipeline.method=baseline", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    own = json.loads((tmp_path / "results/vocab_parallel/own.jsonl").read_text())
    own["suite"] = "quick"
    for metric in own["metrics"]:
        metric["value"] *= 1.1 if metric["name"] == "mfu.of_320" else 1
    (tmp_path / "results/vocab_parallel/quick.jsonl").write_text(json.dumps(own) + "\n")
    reported = vocab("report", "quick", cwd=tmp_path)
    assert reported.returncode == 1
    claims = json.loads((tmp_path / "results/claims.json").read_text())
    verdicts = {claim["id"]: claim["verdict"] for claim in claims}
    assert verdicts["paper-2048-32k-baseline-mfu"] == "fail"
    assert verdicts["paper-2048-32k-baseline-memory"] == "pass"
    assert verdicts["numerics-vocab-1-dx"] == "missing"
