"""The command line as a user calls it, in processes of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def metis(*words: str, cwd: Path, timeout: float = 110) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    return subprocess.run(
        [sys.executable, "-m", "metis", *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_users_own_cluster_gets_a_plan_that_is_simulated(tmp_path: Path) -> None:
    toml = metis("inputs", "mixed-44", cwd=tmp_path).stdout
    (tmp_path / "mine.toml").write_text(toml.replace('"mixed-44"', '"mine"'))
    planned = metis("plan", "mine.toml", "--method", "wider", cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
    plan = json.loads((tmp_path / "results/metis/plans/mine.wider.json").read_text())
    assert sum(len(stage["device_types"]) for stage in plan["stages"]) == 44
    assert plan["stages"][-1]["end_layer"] == 28
    launch = tmp_path / "results/metis/launch/mine.wider"
    assert len(list(launch.glob("*.sh"))) == 8
    simulated = metis(
        "simulate", "mine.toml", "--plan", "results/metis/plans/mine.wider.json", cwd=tmp_path
    )
    assert simulated.returncode == 0, simulated.stderr
    assert "the closed form" in simulated.stdout
    found = records(tmp_path / "results/metis/own.jsonl")
    assert [record["origin"] for record in found] == ["planned", "simulated"]
    reported = metis("report", cwd=tmp_path)
    assert reported.returncode == 0, reported.stderr
    assert "mine" in (tmp_path / "results/report.html").read_text()


def test_compat_writes_the_original_log(tmp_path: Path) -> None:
    done = metis("plan", "table1-row1", "--method", "stratified", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "results/metis/plans/table1-row1.stratified.log").read_text().splitlines()
    assert lines[0].startswith("Average time: ")
    assert lines[0].endswith(" ms")
    assert lines[1] == "count: 562"
    assert lines[3] == (
        "1, 1795.3124791383743, (<DeviceType.A100: 'a100'>, <DeviceType.V100: 'v100'>),"
        " [32], [(1, 32)], 1, [0, 10]"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("plan", "nothing"), "neither an experiment nor a TOML file"),
        (("plan", "mixed-44", "--method", "best"), "--method is 'best', expected one of"),
        (("plan", "mixed-44", "--set", "model.layers=many"), "model.layers"),
        (("plan", "mixed-44", "--set", "model.layers=600"), "no plan fits"),
        (("plan", "mixed-44", "--set", "search.mode=compat"), "needs a power of two"),
        (("plan", "mixed-44", "--set", "profile.source=nowhere"), "no such folder"),
        (("simulate", "mixed-44", "--plan", "no.json"), "no such plan file"),
        (("run", "table1-row1"), "the plan needs 32 ranks"),
        (("run", "table1-row1", "--backend", "mpi"), "expected gloo or nccl"),
        (("profile", "mixed-44"), "say which this machine has"),
        (("report",), "no records"),
        (("report", "slow"), "no suite 'slow'"),
        (("quick", "--set", "a=1"), "quick is a fixed suite"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = metis(*words, cwd=tmp_path)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if not line.startswith("INFO")]
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith("error: ")
    assert message in errors[0]


def test_unsearchably_many_layouts_are_refused_at_once(tmp_path: Path) -> None:
    done = metis(
        "plan",
        "mixed-44",
        "--method",
        "metis",
        "--set",
        "search.max_permute_len=128",
        cwd=tmp_path,
        timeout=60,
    )
    assert done.returncode == 2
    assert "layouts to list" in done.stderr


@pytest.mark.timeout(240)
def test_quick_does_every_case_then_skips_them_and_survives_interruption(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "metis", "quick", "--out", "res"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts background jobs deaf to Ctrl-C; the one under test must hear it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    file = tmp_path / "res/metis/quick.jsonl"
    while not file.exists() or not file.read_text().count("\n"):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "what was finished is kept" in errors.splitlines()[-1]
    kept = len(records(file))
    assert kept >= 1

    done = metis("quick", "--out", "res", cwd=tmp_path, timeout=200)
    assert done.returncode == 0, done.stderr
    assert f"{kept} finished cases are kept" in done.stderr
    assert "12 of 12 claims hold" in done.stdout
    total = len(records(file))
    claims = json.loads((tmp_path / "res/claims.json").read_text())
    assert {claim["verdict"] for claim in claims} == {"pass"}

    again = metis("quick", "--out", "res", cwd=tmp_path)
    assert again.returncode == 0
    assert len(records(file)) == total


def test_a_wrong_count_fails_its_claim_and_exits_1(tmp_path: Path) -> None:
    done = metis("plan", "table1-row1", "--method", "metis", cwd=tmp_path)
    assert done.returncode == 0
    own = records(tmp_path / "results/metis/own.jsonl")[0]
    own["suite"] = "quick"
    for metric in own["metrics"]:
        metric["value"] += metric["name"] == "search.steps"
    (tmp_path / "results/metis/quick.jsonl").write_text(json.dumps(own) + "\n")
    reported = metis("report", "quick", cwd=tmp_path)
    assert reported.returncode == 1
    claims = json.loads((tmp_path / "results/claims.json").read_text())
    verdicts = {claim["id"]: claim["verdict"] for claim in claims}
    assert verdicts["table1-row1-metis-count"] == "fail"
    assert verdicts["table1-row1-stratified-count"] == "missing"


def test_a_report_shows_failed_runs_and_changed_experiments_as_what_they_are(
    tmp_path: Path,
) -> None:
    done = metis(
        *("plan", "table1-row1", "--method", "metis", "--set", "model.layers=12"), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert metis("plan", "table1-row1", "--method", "stratified", cwd=tmp_path).returncode == 0
    file = tmp_path / "results/metis/own.jsonl"
    failed = records(file)[0] | {
        "experiment": "mine",
        "case": {"verb": "run", "method": "optimal", "mode": "strict"},
        "origin": "measured",
        "case_id": "0",
        "status": "failed",
        "error": "rank 2 was killed by SIGKILL",
        "metrics": [],
    }
    with file.open("a") as lines:
        lines.write(json.dumps(failed) + "\n")
    reported = metis("report", cwd=tmp_path)
    assert reported.returncode == 0, reported.stderr
    page = (tmp_path / "results/report.html").read_text()
    assert "failed: rank 2 was killed by SIGKILL" in page
    assert "Table 1: search steps" not in page  # row 1 of the metis policy is not Table 1's
