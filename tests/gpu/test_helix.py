"""Serving on GPUs."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.gpu.conftest import ROOT, Ask, Told

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(400)]
PROMPTS = [f"{word} and {word}" for word in ("one", "two", "red", "blue", "rain", "sun", "a", "z")]


@contextmanager
def served(device: str, gpus: float, out: Path) -> Iterator[str]:
    """Yield the address of serve-tiny on a device; its machines share the GPUs that there are."""
    changes = ("serve.port=0", f"serve.gpus={gpus}", "search.evaluations=500")
    sets = [word for change in changes for word in ("--set", change)]
    command = [sys.executable, "-m", "helix", "run", "serve-tiny", "--backend", device, *sets]
    process = subprocess.Popen(
        [*command, "--out", str(out)], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = next((line for line in process.stdout if "http://" in line), "")
        assert line, "the service ended before it served"
        yield line.split("http://")[1].split()[0]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def answers(address: str) -> tuple[list[str], float]:
    """Return greedy answers to all prompts at once, and tokens per second."""
    body = {"model": "llama-tiny", "prompt": PROMPTS, "temperature": 0, "max_tokens": 8}
    request = urllib.request.Request(
        f"http://{address}/v1/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60):
        start = time.monotonic()  # the second one finds everything warm
    with urllib.request.urlopen(request, timeout=60) as response:
        found = json.load(response)
    rate = found["usage"]["completion_tokens"] / (time.monotonic() - start)
    return [choice["text"] for choice in sorted(found["choices"], key=lambda c: c["index"])], rate


def test_answers_are_those_of_the_cpu(told: Told, cuda: bool, devices: int, tmp_path: Path):
    with served("cpu", 0.0, tmp_path / "cpu") as address:
        there, slow = answers(address)
    with served("cuda" if cuda else "cpu", min(1.0, devices / 4) if cuda else 0.0,
                tmp_path / "here") as address:  # fmt: skip
        here, fast = answers(address)
    told("tokens/s, eight requests at once", fast, slow)
    same = sum(ours == theirs for ours, theirs in zip(here, there, strict=True))
    told("answers equal of 8", same, len(PROMPTS))
    assert same >= len(PROMPTS) - 1  # a tie of two tokens may fall either way on another device


def test_this_machine_s_layers_are_timed(ask: Ask):
    ask("helix", "profile", "serve-tiny", limit_s=390)
