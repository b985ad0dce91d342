"""The command line as a user calls it, in processes of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import msgspec
import pytest

from beta.artifact import ARTIFACT
from beta.inputs.experiment import Experiment
from common.case import resolve
from common.teach import meanings, taught

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(1800)  # several processes, the first of which compile the kernels


def beta(*words: str, cwd: Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    return subprocess.run(
        [sys.executable, "-m", "beta", *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


SEARCHED = ("small", "--set", "placement.method=mp-search")


def test_a_users_own_file_is_placed_and_played(tmp_path: Path):
    toml = beta("inputs", "small", cwd=tmp_path)
    assert toml.returncode == 0, toml.stderr
    (tmp_path / "my.toml").write_text(toml.stdout.replace('"small"', '"mine"', 1))
    done = beta("plan", "my.toml", "--method", "mp-greedy-4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    file = tmp_path / "results/beta/plans/mine.mp-greedy-4.json"
    plan = json.loads(file.read_text())
    assert {group["pp"] for group in plan["periods"][0]["groups"]} == {4}
    played = beta("simulate", "my.toml", "--plan", str(file), cwd=tmp_path)
    assert played.returncode == 0, played.stderr
    lines = (tmp_path / "results/beta/own.jsonl").read_text().splitlines()
    placed, simulated = (json.loads(line) for line in lines)
    assert (placed["origin"], simulated["origin"]) == ("planned", "simulated")
    assert simulated["case"]["method"] == "mp-greedy-4"
    values = {metric["name"]: metric["value"] for metric in simulated["metrics"]}
    assert 0.5 < values["attainment"] <= 1
    report = beta("report", "own", cwd=tmp_path)
    assert report.returncode == 0, report.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("plan", "small", "--method", "worst"), "no method 'worst'"),
        (("plan", "small", "--method", "mp-greedy-3"), "do not divide 8 devices"),
        (("plan", "small", "--set", 'models.0.types=["gpt"]'), "no profile of gpt"),
        (("plan", "small", "--set", "placement.mode=loose"), "placement.mode"),
        (("plan", "small", "--set", "traffic.source=requests"), "needs traffic.path"),
        (("inputs", "small", "--set", "cluster.devices=0"), "must be positive"),
        (("inputs", "small", "--set", "models.0.rate=inf"), "expected a positive number"),
        (("plan", "small", "--seed", "-1"), "--seed is -1, expected 0 or more"),
        (("plan", "small", "--set", "traffic.duration_s=1e12"), "shorten it"),
        (("simulate", "small", "--plan", "nowhere.json"), "nowhere.json: no such plan file"),
        (("run", *SEARCHED, "--backend", "mpi"), "expected gloo or nccl"),
        (("run", *SEARCHED, "--world-size", "4", "--backend", "gloo"), "needs 8 devices"),
        (("run", *SEARCHED, "--world-size", "16", "--backend", "gloo"), "needs 8 devices"),
        (
            ("run", "small", "--backend", "gloo", "--set", "placement.method=sr-replace-300"),
            "in turn",
        ),
        (("run", "small", "--set", "serve.port=-1"), "serve.port is -1"),
        (("plan", "small", "--set", "cluster.devices=1000000"), "expected at most 4096"),
        (("plan", "small", "--set", "models.0.cv=1e5"), "lower cv"),
        (("plan", "small", "--set", "placement.time_limit_s=inf"), "at most 86400"),
        (
            ("run", *SEARCHED, "--backend", "gloo", "--set", "serve.target=http://127.0.0.1:9"),
            "no service",
        ),
        (("profile", "s3-maf1"), "no shape of moe-5.3b"),
        (("quick", "--set", "a=1"), "unknown field"),
        (("quick", "--set", "figures=fig99"), "no figure fig99"),
        (("quick", "--ray", "127.0.0.1:1", "--set", "figures=fidelity"), "no Ray cluster answers"),
        (("report",), "no records"),
        (("inputs", "s1-maf"), "did you mean s1-maf1 or s1-maf2?"),
    ],
)
def test_mistakes_are_one_line_and_status_2(words: tuple[str, ...], message: str, tmp_path: Path):
    done = beta(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_models_that_nothing_holds_are_named(tmp_path: Path):
    (tmp_path / "p.csv").write_text(
        "model,op,pp,batch,stage,latency_s,weight_bytes\na,1,1,1,0,0.1,9e9\nb,1,1,1,0,0.1,\n"
    )
    (tmp_path / "my.toml").write_text(
        'name = "mine"\nprofile = "p.csv"\ncluster = { devices = 1 }\n'
        'models = [{ types = ["a", "b"], count = 2, slo_s = 1, rate = 1 }]\n'
        "traffic = { duration_s = 9 }\n"
    )
    done = beta("plan", "my.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "not placed, so every request for it is refused: b-0;" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("name", ARTIFACT.named())
def test_what_inputs_prints_reads_back_equal(name: str, tmp_path: Path):
    for everything in (False, True):
        (tmp_path / "e.toml").write_text(taught(ARTIFACT.named()[name], everything=everything))
        assert resolve(str(tmp_path / "e.toml"), {}, Experiment) == ARTIFACT.named()[name]


def test_every_field_that_inputs_prints_is_explained():
    def silent(kind: type[msgspec.Struct]) -> list[str]:
        found = [f"{kind.__name__}.{name}" for name, said in meanings(kind).items() if not said]
        for hint in get_type_hints(kind).values():
            for part in (hint, *get_args(hint)):
                if isinstance(part, type) and issubclass(part, msgspec.Struct):
                    found += silent(part)
        return found

    assert silent(Experiment) == []
