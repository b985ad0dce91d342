"""The whole service in processes of its own, as a user starts, asks, breaks and ends it."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from beta.inputs.shapes import SHAPES
from beta.run.reference import TOLERANCE, Reference

ROOT = Path(__file__).parents[2]
START_S, END_S = 600, 200
"""Only to notice that something hangs: a busy machine takes minutes to start what takes seconds."""
MINE = """
name = "mine"
profile = "my.csv"
cluster = {{ devices = {devices}, memory_gib = 1.0 }}
traffic = {{ duration_s = 5 }}
training = {{ on = "same" }}
models = [{{ types = ["bert-micro"], count = 2, slo_s = {slo}, rate = 4 }}]
placement = {{ method = "{method}" }}
simulator = {{ warm_up_s = 0 }}
"""
HEAD = "model,op,pp,batch,stage,latency_s,weight_bytes\n"
STAGE = "bert-micro,{op},{pp},1,{stage},{seconds},1000\n"
CONFIGS = [(op, pp) for op in (1, 2) for pp in (1, 2)]

pytestmark = pytest.mark.timeout(1800)


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}


def write(
    folder: Path, *, devices: int, method: str, slo: float = 20.0, seconds: float = 0.01
) -> None:
    """Write an experiment and its profile, by which every stage takes so many seconds."""
    rows = [
        STAGE.format(op=op, pp=pp, stage=stage, seconds=seconds)
        for op, pp in CONFIGS
        for stage in range(pp)
    ]
    (folder / "my.csv").write_text(HEAD + "".join(rows))
    (folder / "my.toml").write_text(MINE.format(devices=devices, method=method, slo=slo))


class Running:
    def __init__(self, folder: Path, *options: str) -> None:
        words = ["run", "my.toml", "--backend", "gloo", "--set", "serve.load=none", *options]
        self.lines = list[str]()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "beta", *words],
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.url = ""

    def wait_until_it_serves(self) -> None:
        self.url = self.wait_for(r"serving 2 models at (http://\S+)", START_S).group(1)
        self.wait_for("SIGTERM ends it", START_S)

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(iter(self.process.stdout.readline, ""))

    def wait_for(self, pattern: str, seconds: float) -> re.Match[str]:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            for line in list(self.lines):
                if found := re.search(pattern, line):
                    return found
            assert self.process.poll() is None, "".join(self.lines)
            time.sleep(0.1)
        raise AssertionError(f"no {pattern!r} in {seconds} s: {''.join(self.lines)}")

    def get(self, path: str) -> tuple[int, str]:
        return self.ask(path, None)

    def ask(self, path: str, body: Any, **headers: str) -> tuple[int, str]:
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(f"{self.url}{path}", data, headers)
        try:
            with urllib.request.urlopen(asked, timeout=120) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def classify(self, **body: Any) -> tuple[int, dict[str, Any]]:
        body = {"tokens": [1, 2, 3], **body}
        status, text = self.ask(f"/v1/models/{body.pop('model', 'bert-micro-0')}/classify", body)
        return status, json.loads(text)

    def state(self) -> dict[str, Any]:
        return json.loads(self.get("/state")[1])

    def pids(self) -> list[int]:
        ready = [group["ready"] for group in self.state()["groups"]]
        return [pid for r in ready if r for pid in (r["manager_pid"], *r["worker_pids"])]

    def wait_until_ready(self, status: int = 200) -> None:
        """Wait until /readyz answers so: 200 when every group is up, 503 when one is lost."""
        ends = time.monotonic() + START_S
        while self.get("/readyz")[0] != status:
            assert time.monotonic() < ends
            time.sleep(0.02)


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


@contextmanager
def running(folder: Path, *options: str) -> Iterator[Running]:
    service, pids = Running(folder, *options), list[int]()
    try:
        service.wait_until_it_serves()
        pids += service.pids()
        yield service
        pids += service.pids()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(END_S) == 0, "".join(service.lines)
    finally:
        if service.process.poll() is None:
            os.killpg(service.process.pid, signal.SIGKILL)
            service.process.wait()
        service.reader.join(10)
        assert service.process.stdout is not None
        service.process.stdout.close()
    ends = time.monotonic() + END_S
    while left := [pid for pid in pids if alive(pid)]:
        assert time.monotonic() < ends, f"processes left behind: {left}"
        time.sleep(0.2)


def test_a_service_answers_as_the_model_in_one_process_and_ends_cleanly(tmp_path: Path):
    write(tmp_path, devices=2, method="mp-greedy-2")
    with running(tmp_path) as service:
        (group,) = service.state()["groups"]
        assert (group["op"], group["pp"]) == (1, 2)
        assert len(group["ready"]["worker_pids"]) == 2
        for number in (0, 1):
            status, answer = service.classify(model=f"bert-micro-{number}")
            expect = Reference(SHAPES["bert-micro"], number).logits([1, 2, 3])
            assert status == 200
            assert answer["logits"] == pytest.approx(expect, abs=TOLERANCE)
            assert answer["label"] == expect.index(max(expect))
        status, answer = service.classify(slo_s=0.005)
        assert (status, answer["rejected"]) == (429, True)
        assert service.classify(model="who")[0] == 404
        assert service.classify(tokens=[5000]) == (
            400,
            {"error": "token ids of bert-micro-0 are 0 to 999", "rejected": False},
        )
        assert service.ask("/v1/models/bert-micro-0/classify", "x" * (1 << 21))[0] == 413
        wrong = {"Content-Encoding": "gzip"}
        assert service.ask("/v1/models/bert-micro-0/classify", "plain", **wrong)[0] == 400
        assert service.get("/healthz")[0] == service.get("/readyz")[0] == 200
        metrics = service.get("/metrics")[1]
        assert 'beta_requests_total{model="bert-micro-0",outcome="rejected"} 1.0' in metrics
        state = service.state()
        assert state["balanced"]
        assert state["books"]["invalid"] == 4
    record = json.loads((tmp_path / "results/beta/own.jsonl").read_text().splitlines()[-1])
    values = {metric["name"]: metric["value"] for metric in record["metrics"]}
    assert record["origin"] == "measured"
    assert values["outputs.difference"] <= TOLERANCE
    assert (values["books.served"], values["books.rejected"]) == (2, 1)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker", "manager"])
def test_what_a_killed_process_held_is_answered_elsewhere(tmp_path: Path, victim: str):
    write(tmp_path, devices=2, method="sr-greedy")
    with running(tmp_path) as service:
        groups = [group["ready"] for group in service.state()["groups"]]
        assert len(groups) == 2
        stop, statuses = threading.Event(), list[int]()

        def ask() -> None:
            while not stop.is_set():
                statuses.append(service.classify()[0])

        askers = [threading.Thread(target=ask) for _ in range(4)]
        for asker in askers:
            asker.start()
        time.sleep(1)
        pid = groups[0]["manager_pid"] if victim == "manager" else groups[0]["worker_pids"][0]
        os.kill(pid, signal.SIGKILL)
        service.wait_for("group 0 is lost", START_S)
        service.wait_for("group 0 serves again", START_S)
        stop.set()
        for asker in askers:
            asker.join()
        assert set(statuses) == {200}
        state = service.state()
        assert state["balanced"]
        assert state["books"]["served"] == len(statuses)
        assert (state["books"]["failed"], state["books"]["rebuilt"]) == (0, 1)
        service.wait_until_ready()


@pytest.mark.slow
def test_without_another_replica_an_error_comes_within_the_target(tmp_path: Path):
    write(tmp_path, devices=2, method="mp-greedy-2")
    with running(tmp_path) as service:
        (group,) = (group["ready"] for group in service.state()["groups"])
        os.kill(group["worker_pids"][1], signal.SIGSTOP)  # hangs: nobody learns of it
        late = list[float]()
        for _ in range(3):
            begun = time.monotonic()
            status, answer = service.classify(slo_s=1.0)
            late.append(time.monotonic() - begun - 1.0)
            assert (status, answer["error"]) == (504, "no answer by the deadline")
        # A busy machine may be late with an answer, but a late rule would be late with all.
        assert -0.1 < min(late) < 1
        os.kill(group["worker_pids"][1], signal.SIGKILL)
        service.wait_until_ready(503)
        # At once, by its reason: half a second is less than any group takes to be built.
        status, answer = service.classify(slo_s=0.5)
        assert (status, answer["error"]) == (503, "no group with this model is up")
        service.wait_until_ready()
        assert service.classify()[0] == 200
        state = service.state()
        assert state["balanced"]
        books = [state["books"][what] for what in ("served", "failed", "rebuilt")]
        assert books == [1, 4, 1]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "op", "pp"), [("mp-equal-1-2", 2, 1), ("mp-equal-2-2", 2, 2)])
def test_tensor_parallel_stages_serve_the_same_outputs(
    tmp_path: Path, method: str, op: int, pp: int
):
    write(tmp_path, devices=2 * op * pp, method=method)
    with running(tmp_path) as service:
        assert {(g["op"], g["pp"]) for g in service.state()["groups"]} == {(op, pp)}
        for number in (0, 1):
            _, answer = service.classify(model=f"bert-micro-{number}", tokens=[9, 8, 7, 6])
            expect = Reference(SHAPES["bert-micro"], number).logits([9, 8, 7, 6])
            assert answer["logits"] == pytest.approx(expect, abs=TOLERANCE)


@pytest.mark.slow
def test_stages_slower_than_profiled_keep_their_goodput_and_the_books_balance(tmp_path: Path):
    # Each stage really takes 60 ms where the profile says 20: 16 requests/s of the 40 asked for.
    write(tmp_path, devices=1, method="mp-greedy-1", slo=1.0, seconds=0.02)
    words = ["run", "my.toml", "--backend", "gloo", "--set", "models.0.rate=20"]
    words += ["--set", "serve.stages=delay", "--set", "serve.slower=3"]
    done = subprocess.run(
        [sys.executable, "-m", "beta", *words],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=START_S + END_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "results/beta/own.jsonl").read_text().splitlines()[-1])
    at = {metric["name"]: metric["value"] for metric in record["metrics"]}
    assert at["client.rejected"] > 0
    assert at["client.unanswered"] == 0
    assert at["books.balanced"] == 1
    books = [at[f"books.{what}"] for what in ("received", "served", "rejected", "failed")]
    client = [at[f"client.{what}"] for what in ("sent", "served", "rejected", "failed")]
    assert books == client
    capacity = (5 + 1.0) / 0.06
    # Half of it: the rest is what a machine that does other work may take; FIFO answers a tenth.
    assert at["attainment"] * at["requests"] >= 0.5 * capacity
