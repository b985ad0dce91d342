"""Vocabulary parallelism on GPUs."""

import subprocess
import sys

import pytest
import torch

from tests.gpu.conftest import ROOT, Ask, Told
from vocab_parallel.plan.methods import METHODS

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(400)]


def run(ask: Ask, ranks: int, backend: str, *changes: str) -> dict[str, float]:
    sets = [word for change in changes for word in ("--set", change)]
    return ask("vocab_parallel", "run", f"tiny-cpu-{ranks}", "--backend", backend, *sets)


@pytest.fixture(scope="module")
def backend(cuda: bool) -> str:
    return "nccl" if cuda else "gloo"


def test_training_in_float64_equals_the_cpu(ask: Ask, told: Told, backend: str):
    cpu, here = run(ask, 1, "gloo"), run(ask, 1, backend)
    told("loss after six steps", here["loss.last"], cpu["loss.last"])
    told("iteration, s", here["iteration.time"], here["iteration.predicted"])
    assert here["loss.last"] == pytest.approx(cpu["loss.last"], rel=1e-9)
    assert here["gradient.norm"] == pytest.approx(cpu["gradient.norm"], rel=1e-9)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_training_in_short_types_stays_near(ask: Ask, told: Told, backend: str, dtype: str):
    exact, short = run(ask, 1, "gloo"), run(ask, 1, backend, f"training.dtype={dtype}")
    told(f"loss in {dtype}", short["loss.last"], exact["loss.last"])
    assert short["loss.last"] == pytest.approx(exact["loss.last"], rel=0.01)


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_over_ranks_equals_one_process(
    ask: Ask, told: Told, backend: str, devices: int, ranks: int, method: str
):
    if devices < ranks:
        pytest.skip(f"needs {ranks} GPUs, {devices} are here")
    one = run(ask, 1, "gloo")
    here = run(ask, ranks, backend, f"pipeline.method={method}")
    told(f"{method}, iteration, s", here["iteration.time"], here["iteration.predicted"])
    assert here["loss.last"] == pytest.approx(one["loss.last"], rel=1e-9)


def test_eight_ranks_are_replayed_one_by_one(ask: Ask, told: Told, cuda: bool):
    """The largest model of 8 ranks that this device holds; time and memory beside the model's."""
    memory = torch.cuda.get_device_properties(0).total_memory if cuda else 0
    name = "replay" if memory > 60e9 else "tiny-cpu-4"
    sets = ("--set", "training.replay_rank=-1") if name != "replay" else ()
    found = ask("vocab_parallel", "run", name, *sets, limit_s=390)
    plain = ask("vocab_parallel", "simulate", name)
    told("busiest rank, s", found["busy"])
    told("iteration from its pass times, s", found["iteration.predicted"], plain["iteration.time"])
    if cuda:
        told("peak memory, GiB", found["memory.allocated"], plain["memory.allocated"])
    assert found["iteration.predicted"] > 0


def test_the_triton_kernel_agrees_with_torch(cuda: bool):
    command = [sys.executable, "-m", "pytest", "-q", "-m", "slow", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "tests/vocab_parallel/test_kernel.py"], cwd=ROOT, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout
