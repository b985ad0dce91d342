"""Triton kernels compiled ahead of time for GPUs that are not here."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed"),
]

ROOT = Path(__file__).parents[2]
TARGETS = (80, 90, 100)  # A100, H100, B200
COMPILE = """
import json, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from vocab_parallel.run import softmax

sizes = {name: "i32" for name in ("stride", "tokens", "width", "real")}
pointers = {"softmax": "*fp32", "statistics": "*fp32", "labels": "*i64"}
found = {}
for dtype in ("bf16", "fp16", "fp32"):
    signature = {"logits": f"*{dtype}"} | pointers | sizes | {"BLOCK": "constexpr"}
    source = ASTSource(softmax._softmax_kernel, signature, {"BLOCK": softmax._BLOCK})
    made = triton.compile(source, target=GPUTarget("cuda", int(sys.argv[1]), 32))
    found[dtype] = [len(made.asm["cubin"]), f".target sm_{sys.argv[1]}" in made.asm["ptx"]]
print(json.dumps(found))
"""


@pytest.mark.parametrize("target", TARGETS)
def test_the_softmax_kernel_compiles_without_a_gpu(target: int, tmp_path: Path) -> None:
    """In a process of its own, since the interpreter's kernels of other tests do not compile."""
    settings = {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_DEFAULT_FP_FUSION": "1"}
    command = [sys.executable, "-c", COMPILE, str(target)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False,
        env={k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | settings,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {*found} == {"bf16", "fp16", "fp32"}
    for size, named in found.values():
        assert size > 1000
        assert named
