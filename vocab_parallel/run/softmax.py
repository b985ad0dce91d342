"""The elementwise part of S as one Triton kernel: maximum, sum, label's logit and softmax.

The plain form sweeps the float32 logits about seven times; this reads the logits twice, in their
own type, and writes the softmax once. Its twin is `vocab_parallel.run.output`, which is the
default; a run takes the kernel with `training.kernel = "triton"`. Importing this needs triton.
"""

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

_BLOCK = 1024


def local_softmax(
    logits_NV: Tensor, row_N: Tensor, owned_N: Tensor, real: int
) -> tuple[Tensor, Tensor]:
    """Return statistics_KN (maximum, sum, label's logit, sum of logits) and the local softmax_NV.

    Both are float32; columns from `real` on are padding with probability 0. A shard that is all
    padding has the maximum -inf and the sum 0.
    """
    tokens, width = logits_NV.shape
    statistics_KN = logits_NV.new_empty(4, tokens, dtype=torch.float32)
    softmax_NV = logits_NV.new_empty(tokens, width, dtype=torch.float32)
    label_N = row_N.where(owned_N, -1)
    _softmax_kernel[(tokens,)](  # pyright: ignore[reportIndexIssue]
        logits_NV, softmax_NV, statistics_KN, label_N,
        logits_NV.stride(0), tokens, width, real,
        BLOCK=_BLOCK,  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    return statistics_KN, softmax_NV


@triton.jit
def _softmax_kernel(
    logits, softmax, statistics, labels, stride, tokens, width, real, BLOCK: tl.constexpr
):
    """One program per token: an online maximum and sum, then the softmax."""
    token = tl.program_id(0)
    row = logits + token.to(tl.int64) * stride
    out = softmax + token.to(tl.int64) * width
    column = tl.arange(0, BLOCK)
    maximum = -float("inf")
    total = 0.0
    every = 0.0
    for start in range(0, real, BLOCK):
        inside = start + column < real
        value = tl.load(row + start + column, mask=inside, other=-float("inf")).to(tl.float32)
        higher = tl.maximum(maximum, tl.max(value, 0))
        total = total * tl.exp(maximum - higher) + tl.sum(tl.exp(value - higher), 0)
        every += tl.sum(tl.where(inside, value, 0.0), 0)  # pyright: ignore[reportOperatorIssue]
        maximum = higher
    label = tl.load(labels + token)
    found = tl.load(row + label, mask=label >= 0, other=0.0).to(tl.float32)
    tl.store(statistics + token, maximum)
    tl.store(statistics + tokens + token, total)
    tl.store(statistics + 2 * tokens + token, found)
    tl.store(statistics + 3 * tokens + token, every)
    shift = tl.where(maximum > -float("inf"), maximum, 0.0)
    scale = 1.0 / tl.where(total > 0, total, 1.0)
    for start in range(0, width, BLOCK):
        inside = start + column < real
        value = tl.load(row + start + column, mask=inside, other=-float("inf")).to(tl.float32)
        share = tl.where(inside, tl.exp(value - shift) * scale, 0.0)
        tl.store(out + start + column, share, mask=start + column < width)
