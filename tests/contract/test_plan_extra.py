"""The extra `plan` is enough to plan and simulate in every package: neither torch nor Ray."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CASES = {
    "helix": (
        "my-cluster",
        *("--set", "search.objective=latency-flow"),
        *("--set", "search.evaluations=5000"),
    ),
    "metis": ("mixed-44", "--set", "search.time_limit_s=3"),
    "beta": ("small",),
    "puzzle": ("align-7b-7b",),
    "vocab_parallel": ("multilingual-8",),
}
FAST = ("metis", "vocab_parallel")  # the others have larger kernels to compile first
WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "ray", "transformers", "deepspeed", "megatron"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

sys.meta_path.insert(0, Absent())
from common.verbs import main
from importlib import import_module
package = sys.argv.pop(1)
main(import_module(package + ".artifact").ARTIFACT)
"""


@pytest.mark.timeout(600)  # kernels may have to be compiled first
@pytest.mark.parametrize(
    "package", [pytest.param(p, marks=() if p in FAST else pytest.mark.slow) for p in CASES]
)
def test_plan_and_simulate_need_neither_torch_nor_ray(package: str, tmp_path: Path):
    if not (ROOT / package).exists():
        pytest.skip("an image has one package")
    for verb in ("plan", "simulate"):
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT, package, verb, *CASES[package]],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
