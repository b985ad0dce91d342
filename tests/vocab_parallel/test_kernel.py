"""The Triton kernel of S against its torch twin, in Triton's interpreter (no GPU needed)."""

import os
from importlib.util import find_spec

import pytest
import torch

if find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from vocab_parallel.run.output import Rules, Shard, combine, s_pass, shard_labels, t_pass

pytestmark = pytest.mark.slow
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize(
    ("algorithm", "keep", "dtype", "rows", "real"),
    [
        *(("vocab-1", "softmax", dtype, rows, real)
          for dtype in (torch.float32, torch.float16)
          for rows, real in ((40, 33), (40, 0), (1500, 1400))),
        *((algorithm, keep, torch.float32, 40, 40)
          for algorithm in ("vocab-1", "vocab-2") for keep in ("softmax", "logits")),
    ],
)  # fmt: skip
def test_kernel_and_torch_agree(algorithm, keep, dtype: torch.dtype, rows: int, real: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 8, generator=generator).to(DEVICE, dtype)
    weight = torch.randn(rows, 8, generator=generator).to(DEVICE, dtype)
    shard = Shard(weight, 10, real, 2000)
    ids = torch.randint(0, rows + 20, (6,), generator=generator).to(DEVICE)
    labels = shard_labels(ids, torch.ones(6, device=DEVICE), shard)
    found = {}
    for kernel in ("torch", "triton"):
        rules = Rules(algorithm, 0.1, 0, keep, kernel)
        passed = s_pass(x, shard, labels, rules)
        other = torch.tensor([0.5, 3.0, 1.0, 0.0], device=DEVICE)[:, None].expand(4, 6)
        every = combine(torch.stack([passed.local, other]), 0, shard, labels, rules)
        dw, dx = t_pass(x, passed, every, shard, labels, rules)
        found[kernel] = [passed.local, every.loss, dw, dx, passed.product]
    tolerance = 1e-5 if dtype == torch.float32 else 5e-3
    for ours, theirs in zip(found["triton"], found["torch"], strict=True):
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
