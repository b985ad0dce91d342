"""`python -m helix run` on Ray: serves, mends itself, drains, and leaves no process behind."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from common.case import to_toml
from common.files import write_plan
from common.verbs import app_of
from helix.artifact import ARTIFACT
from tests.helix.local_fleet import experiment, plan

ROOT = Path(__file__).parents[2]
MEND_S, END_S, ANSWER_S = 90.0, 60.0, 90.0
ASKED = {"prompt": "The quick brown fox", "max_tokens": 24, "temperature": 0}


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with (folder / "stderr").open("w") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "helix", "run", *arguments, "--out", str(folder)],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str, Path]]:
    folder = tmp_path_factory.mktemp("service")
    asked = experiment(machines=4, restart=True, patience_s=60.0, trace=True)
    (folder / "my.toml").write_text(to_toml(asked))
    write_plan(plan(asked, ((0, 3), (3, 6), (0, 3), (3, 6))), folder / "plan.json")
    process = started(folder, "my.toml", "--plan", "plan.json")
    assert process.stdout is not None
    line = process.stdout.readline()
    try:
        assert line.startswith("serving at "), (folder / "stderr").read_text()
        yield process, line.split()[2], folder
    finally:
        if process.poll() is None:
            process.kill()
        process.stdout.close()
        process.wait()


def get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=ANSWER_S) as response:
        return json.loads(response.read())


def post(url: str, **body: Any) -> str:
    data = json.dumps({**ASKED, **body}).encode()
    request = urllib.request.Request(f"{url}/v1/completions", data)
    with urllib.request.urlopen(request, timeout=ANSWER_S) as response:
        return json.loads(response.read())["choices"][0]["text"]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.timeout(300)
def test_it_serves_survives_a_kill_and_drains(service):
    process, url, folder = service
    before = [post(url, prompt=f"{ASKED['prompt']} {i}") for i in range(4)]
    health = get(f"{url}/health")
    assert (health["status"], sorted(health["machines"])) == ("ok", ["0", "1", "2", "3"])
    pids = list(health["machines"].values())

    os.kill(health["machines"]["1"], signal.SIGKILL)
    assert [post(url, prompt=f"{ASKED['prompt']} {i}") for i in range(4)] == before

    until = time.monotonic() + MEND_S
    while not ((health := get(f"{url}/health"))["machines"].keys() >= {"1"} and not health["lost"]):
        assert time.monotonic() < until, health
        time.sleep(0.2)
    pids.append(health["machines"]["1"])
    assert [post(url, prompt=f"{ASKED['prompt']} {i}") for i in range(4)] == before
    books = get(f"{url}/health")["books"]
    assert (books["sent"], books["served"], books["failed"]) == (12, 12, 0)

    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=END_S)
    assert process.returncode == 0, (folder / "stderr").read_text()
    assert "12 requests: 12 served, 0 rejected, 0 failed, 0 cancelled, 0 open" in out
    until = time.monotonic() + END_S
    while not all(map(gone, pids)):
        assert time.monotonic() < until
        time.sleep(0.1)
    record = json.loads((folder / "helix" / "own.jsonl").read_text().splitlines()[-1])
    assert record["origin"] == "measured"
    assert {m["name"]: m["value"] for m in record["metrics"]}["requests.served"] == 12
    trace = msgspec.json.decode((folder / "helix" / "traces" / "local.json").read_bytes())
    names = {event["name"] for event in trace["traceEvents"]}
    assert {"layer 0", "layer 5", "prompt", "token 23", "machine 1 is back"} <= names


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["my-cluster", "--backend", "nccl"], "expected cpu or cuda"),
        (["my-cluster", "--world-size", "2"], "has 13 machines"),
        (["single-llama70b-helix-offline"], "folder of weights"),
        (["played-helix-online", "--set", "serve.port=-1"], "serve.port is -1"),
        (["played-helix-online", "--set", "serve.weights=nowhere"], "nowhere/config.json"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, arguments: list[str], said: str):
    done = CliRunner().invoke(app_of(ARTIFACT), ["run", *arguments, "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
