"""`make gpu`: what it says where no GPU is, and its checks rehearsed on CPU ranks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHECKS = ROOT / "tests" / "gpu"

if not all((ROOT / name).exists() for name in ("helix", "metis", "puzzle", "vocab_parallel")):
    pytest.skip("an image has one package", allow_module_level=True)


def check(*words: str, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "--numprocesses", "0"]
    command += ["-p", "no:cacheprovider", *words]
    settings = os.environ | {"RESULTS": str(out), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False
    )


@pytest.mark.timeout(300)
def test_without_a_gpu_it_says_what_it_would_do(tmp_path: Path):
    done = check("tests/gpu", out=tmp_path)
    assert done.returncode == 2
    assert "no CUDA device is visible here" in done.stdout
    for path in sorted(CHECKS.glob("test_*.py")):
        assert f"  {path.stem.removeprefix('test_')}: " in done.stdout
    assert [*tmp_path.iterdir()] == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_its_checks_hold_on_cpu_ranks_and_are_told_in_the_report(tmp_path: Path):
    some = ("one_step_equals", "float64_equals", "answers_are_those", "losses_equal")
    done = check("tests/gpu", "--device", "cpu", "-k", " or ".join(some), out=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
    found = json.loads((tmp_path / "gpu" / "gpu.json").read_text())
    assert {row["check"].partition(":")[0] for row in found["rows"]} == {
        "helix", "metis", "puzzle", "vocab_parallel",
    }  # fmt: skip
    assert "FAILED" not in {row["state"] for row in found["rows"]}
    assert (tmp_path / "gpu" / "gpu.json").stat().st_size < 100_000
    page = (tmp_path / "report.html").read_text()
    assert "a rehearsal" in page
    assert "loss after four steps" in page
