"""Ten minutes of clients that come, go and err, while machines are killed: the books balance.

SOAK_S takes another length in seconds.
"""

import json
import os
import random
import signal
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from common.case import to_toml
from common.files import write_plan
from tests.helix.local_fleet import experiment, plan
from tests.helix.test_run_cli import get, started

SOAK_S = float(os.environ.get("SOAK_S", "600"))
CLIENTS, PROMPTS, END_S = 6, 8, 90.0
KILL_AT = (0.3, 0.5, 0.55)  # parts of the time; the machine that has most to do
GROWTH = 200 * 2**20  # bytes of resident memory


class Clients:
    """Threads that ask, and what came of it as they saw it."""

    def __init__(self, url: str) -> None:
        self.url, self.seen, self.over = url, Counter[str](), threading.Event()
        self.answers = dict[str, set[str]]()
        self.lock, self.longest = threading.Lock(), 0.0
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(CLIENTS)]

    def run(self, number: int) -> None:
        draw = random.Random(number)
        while not self.over.is_set():
            begin, outcome = time.monotonic(), self.one(draw)
            with self.lock:
                self.seen[outcome] += 1
                self.longest = max(self.longest, time.monotonic() - begin)

    def one(self, draw: random.Random) -> str:
        kind = draw.choices(("whole", "stream", "leave", "bad"), (5, 5, 1, 1))[0]
        prompt = f"prompt {draw.randrange(PROMPTS)}"
        body: dict[str, Any] = {"prompt": prompt, "max_tokens": 48, "temperature": 0}
        if kind == "bad":
            body["max_tokens"] = 100_000
        if kind in ("stream", "leave"):
            body["stream"] = True
        data = json.dumps(body).encode()
        try:
            with urllib.request.urlopen(f"{self.url}/v1/completions", data, timeout=END_S) as got:
                if kind == "leave":
                    got.read(40)
                    return "left"
                text = got.read().decode()
        except urllib.error.HTTPError as error:
            return {400: "rejected", 429: "rejected"}.get(error.code, f"failed {error.code}")
        except (OSError, HTTPException) as error:
            return f"broken {error!r}"
        return self.answered(prompt, text, streamed=kind == "stream")

    def answered(self, prompt: str, text: str, *, streamed: bool) -> str:
        if streamed:
            lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
            events = [json.loads(line) for line in lines if line != "[DONE]"]
            if any("error" in event for event in events):
                return "failed in the stream"
            answer = "".join(event["choices"][0]["text"] for event in events)
        else:
            answer = json.loads(text)["choices"][0]["text"]
        with self.lock:
            self.answers.setdefault(prompt, set()).add(answer)
        return "served"


def resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(s.split()[1]) * 1024 for s in status.splitlines() if s.startswith("VmRSS"))


@pytest.mark.slow
@pytest.mark.timeout(SOAK_S + 400)
def test_a_soak_with_kills_loses_nothing(tmp_path: Path):
    asked = experiment(machines=4, restart=True, patience_s=60.0)
    (tmp_path / "my.toml").write_text(to_toml(asked))
    write_plan(plan(asked, ((0, 3), (3, 6), (0, 3), (3, 6))), tmp_path / "plan.json")
    process = started(tmp_path, "my.toml", "--plan", "plan.json")
    assert process.stdout is not None
    url = process.stdout.readline().split()[2]
    clients = Clients(url)
    try:
        for thread in clients.threads:
            thread.start()
        begin = time.monotonic()
        early = 0
        kills = list(KILL_AT)
        while time.monotonic() < begin + SOAK_S:
            time.sleep(0.2)
            part = (time.monotonic() - begin) / SOAK_S
            if not early and part > 0.2:
                early = resident(process.pid)
            if kills and part > kills[0]:
                blocks, machines = blocks_by_machine(url), get(f"{url}/health")["machines"]
                if machines.keys() & blocks.keys() and any(blocks.values()):
                    kills.pop(0)
                    busiest = max(machines.keys() & blocks.keys(), key=blocks.__getitem__)
                    os.kill(machines[busiest], signal.SIGKILL)
        clients.over.set()
        for thread in clients.threads:
            thread.join(END_S)
        assert not any(thread.is_alive() for thread in clients.threads)
        grown = resident(process.pid) - early
        while (health := get(f"{url}/health"))["running"] + health["waiting"]:
            time.sleep(0.1)
        books = health["books"]
        print(f"{books} clients: {dict(clients.seen)}, longest {clients.longest:.1f} s, {grown=}")
        used = used_blocks(url)
    finally:
        clients.over.set()
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=END_S)
    print(out)
    ends = sum(books[outcome] for outcome in ("served", "rejected", "failed", "cancelled"))
    assert books["sent"] == ends == sum(clients.seen.values())
    assert books["rejected"] == clients.seen["rejected"]
    assert books["failed"] == 0
    assert set(clients.seen) <= {"served", "rejected", "left"}
    # A client that leaves late has been served all the same.
    assert books["cancelled"] <= clients.seen["left"]
    assert not kills
    assert books["again"] > 0
    assert {len(answers) for answers in clients.answers.values()} == {1}
    assert used == 0
    assert grown < GROWTH
    assert process.returncode == 0


def blocks_by_machine(url: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{url}/metrics", timeout=END_S) as response:
        lines = response.read().decode().splitlines()
    used = [s.split() for s in lines if s.startswith("helix_kv_blocks_used{")]
    return {name.split('"')[1]: float(value) for name, value in used}


def used_blocks(url: str) -> float:
    for _ in range(50):
        used = sum(blocks_by_machine(url).values())
        if used == 0:
            break
        time.sleep(0.1)
    return used
