"""The command line as a user calls it, in processes of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = (
    "--set", "search.chains=2", "--set", "search.evaluations=20000", "--set",
    "search.simulations=4", "--set", "workload.duration_s=60",
)  # fmt: skip


def helix(*words: str, cwd: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "160"}
    return subprocess.run(
        [sys.executable, "-m", "helix", *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def metrics(record: dict) -> dict[str, float]:
    return {metric["name"]: metric["value"] for metric in record["metrics"]}


@pytest.mark.timeout(400)  # compiles all kernels where nothing is cached yet
def test_a_users_own_cluster_gets_a_plan_that_is_simulated_and_reported(tmp_path: Path) -> None:
    toml = helix("inputs", "my-cluster", cwd=tmp_path).stdout
    (tmp_path / "mine.toml").write_text(toml.replace('"my-cluster"', '"mine"'))
    planned = helix("plan", "mine.toml", *SMALL, cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
    (path,) = (tmp_path / "results/helix/plans").glob("*.json")
    (service,) = json.loads(path.read_text())["services"]
    assert len(service["intervals"]) == 13
    covered = {layer for first, end in service["intervals"] for layer in range(first, end)}
    assert covered == set(range(80))
    simulated = helix(
        "simulate", "mine.toml", *SMALL, "--set", "workload.timeline_s=2", "--plan", str(path),
        cwd=tmp_path,
    )  # fmt: skip
    assert simulated.returncode == 0, simulated.stderr
    assert "busy, %" in simulated.stdout
    found = records(tmp_path / "results/helix/own.jsonl")
    assert [record["origin"] for record in found] == ["planned", "simulated"]
    assert metrics(found[0])["plan.flow"] <= metrics(found[0])["plan.bound"] * (1 + 1e-9)
    assert metrics(found[1])["decode.throughput"] > 0
    timeline = json.loads((tmp_path / "results/helix/timelines/mine-all.json").read_text())
    phases = {event["ph"] for event in timeline["traceEvents"]}
    assert phases == {"M", "X", "C"}
    reported = helix("report", cwd=tmp_path)
    assert reported.returncode == 0, reported.stderr
    assert "mine" in (tmp_path / "results/report.html").read_text()


def test_a_sweep_does_all_combinations_and_resumes(tmp_path: Path) -> None:
    toml = helix("inputs", "geo-placement-petals", cwd=tmp_path).stdout.replace("[sweep]", "")
    sweep = '[sweep]\nseed = [0, 1]\n"workload.initial" = [10, 20]\n'
    (tmp_path / "mine.toml").write_text(toml + sweep)
    first = helix("simulate", "mine.toml", "--set", "workload.duration_s=60", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    path = tmp_path / "results/helix/own.jsonl"
    done = [record for record in records(path) if record["origin"] == "simulated"]
    loads = {(r["seed"], r["config"]["experiment"]["workload"]["initial"]) for r in done}
    assert loads == {(0, 10), (0, 20), (1, 10), (1, 20)}
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n")
    again = helix("simulate", "mine.toml", "--set", "workload.duration_s=60", cwd=tmp_path)
    assert again.stdout == first.stdout
    assert len(path.read_text().splitlines()) == len(lines)


def test_the_original_placement_serves_what_the_artifact_prints(tmp_path: Path) -> None:
    done = helix("simulate", "geo-scheduling-maxflow", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (record,) = records(tmp_path / "results/helix/own.jsonl")
    assert round(metrics(record)["decode.throughput"], 1) == 99.8


def test_where_nothing_ends_in_time_there_are_no_latencies(tmp_path: Path) -> None:
    short = ("--set", "workload.duration_s=0.01", "--set", "workload.warm_up_s=0")
    done = helix("simulate", "geo-placement-petals", *short, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no prompt ended in the time that counts" in done.stderr
    (record,) = records(tmp_path / "results/helix/own.jsonl")
    assert metrics(record)["decode.throughput"] == 0
    assert "prompt.p50" not in metrics(record)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("plan", "nothing"), "neither an experiment nor a TOML file"),
        (("plan", "my-cluster", "--method", "best"), "--method is 'best', expected one of"),
        (("plan", "my-cluster", "--objective", "cost"), "--objective is 'cost'"),
        (("plan", "my-cluster", "--seed", "-1"), "--seed is -1"),
        (("plan", "my-cluster", "--set", "model.layers=many"), "model.layers"),
        (("plan", "my-cluster", "--set", "model.layers=800"), "hold"),
        (("plan", "my-cluster", "--set", "cluster.machines.0.kind=B300"), "; did you mean B200"),
        (
            ("plan", "my-cluster", "--set", "cluster.links.0.gbit_per_s=-1"),
            "gbit_per_s is -1.0, expected 0 or more",
        ),
        (
            ("plan", "my-cluster", "--set", "cluster.default_link={gbit_per_s=0}", "--set",
             "cluster.links=[]"),
            "no links lead from the coordinator over a machine and back",
        ),
        (
            ("plan", "my-cluster", "--set", "cluster.links.0.gbit_per_s=0", "--set",
             "cluster.links.1.gbit_per_s=0", "--set", "model.layers=160"),
            "(8 machines have no links to and from it)",
        ),
        (
            ("plan", "my-cluster", "--method", "petals", "--set",
             "cluster.default_link={gbit_per_s=0}"),
            "no work can pass from the coordinator",
        ),
        (
            ("plan", "my-cluster", "--method", "search", "--objective", "flow", "--set",
             "search.chains=1", "--set", "search.evaluations=1", "--set",
             "cluster.default_link={gbit_per_s=0}"),
            "the search found no placement that work can pass through",
        ),
        (("plan", "my-cluster", "--set", "cluster.links.0.between=['us','mars']"), "no end 'mars'"),
        (("plan", "my-cluster", "--set", "profile.source=measured"), "has none"),
        (("plan", "my-cluster", "--set", "workload.trace=no.csv"), "no.csv: there is no such file"),
        (
            ("plan", "my-cluster", "--set", "cluster.coordinator_region=mars"),
            "'mars', but the machines stand in us, eu, asia",
        ),
        (("plan", "my-cluster", "--set", "cluster.machines.0.count=100000000000"), "1e+11 x"),
        (("plan", "my-cluster", "--set", "profile.source=nowhere"), "nowhere"),
        (("plan", "single-llama70b-search-offline", "--set", "search.chains=0"), "search.chains"),
        (("simulate", "my-cluster", "--plan", "no.json"), "no.json"),
        (("simulate", "geo-placement-swarm", "--set", "sweep.seed=[]"), "has no values"),
        (("simulate", "geo-placement-swarm", "--set", "sweep.seed=[-1]"), "seed is -1"),
        (("simulate", "geo-placement-swarm", "--set", "sweep.seed=[1.5]"), "seed is 1.5"),
        (("simulate", "my-cluster", "--set", "workload.duration_s=inf"), "duration_s inf"),
        (
            ("simulate", "geo-placement-swarm", "--set", "sweep.seed=[0]", "--ray",
             "127.0.0.1:9"),
            "no Ray cluster answers there",
        ),
        (("report",), "no records"),
        (("report", "slow"), "no suite 'slow'"),
        (("quick", "--set", "a=1"), "quick is a fixed suite"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_status_2(
    tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = helix(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if not line.startswith("INFO")]
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith("error: ")
    assert message in errors[0]
