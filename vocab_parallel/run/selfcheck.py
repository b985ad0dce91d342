"""Before training: the sharded output layer on the run's own ranks against one process.

Loss, dX and dW of random tokens, float64, by this run's algorithm and collectives, compared with
torch's cross entropy on rank 0 of the pipeline.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812  the name the whole field knows
from torch import Tensor

from vocab_parallel.inputs.model import padded_vocabulary
from vocab_parallel.run import output
from vocab_parallel.run.links import Groups
from vocab_parallel.run.output import IGNORED, Rules, Shard

TOKENS, HIDDEN, MOST_ROWS = 64, 48, 4096


class Errors(NamedTuple):
    """Largest difference of the losses in nat; relative (Frobenius) of the gradients."""

    loss: float
    dx: float
    dw: float


def check_output(groups: Groups, vocabulary: int, rules: Rules, device: torch.device) -> Errors:
    """Return the errors; all ranks of the pipeline call this together and get the same."""
    vocabulary = min(vocabulary, MOST_ROWS)
    generator = torch.Generator().manual_seed(vocabulary)
    x = torch.randn(TOKENS, HIDDEN, generator=generator, dtype=torch.float64)
    weight = torch.randn(vocabulary, HIDDEN, generator=generator, dtype=torch.float64) / 4
    labels = torch.randint(0, vocabulary, (TOKENS,), generator=generator)
    labels[::7] = IGNORED
    gamma = torch.rand(TOKENS, generator=generator, dtype=torch.float64)
    x, weight, labels, gamma = (part.to(device) for part in (x, weight, labels, gamma))
    ours = _sharded(groups, x, weight, labels, gamma, rules)
    theirs = _plain(x, weight, labels, gamma, rules.smoothing)
    return Errors(
        float((ours[0] - theirs[0]).abs().max()),
        _relative(ours[1], theirs[1]),
        _relative(ours[2], theirs[2]),
    )


def _relative(ours: Tensor, theirs: Tensor) -> float:
    """Return the relative error; the absolute one where a vocabulary of one token has no slope."""
    return float((ours - theirs).norm() / (theirs.norm() or 1.0))


def _sharded(
    groups: Groups, x: Tensor, weight: Tensor, labels: Tensor, gamma: Tensor, rules: Rules
) -> tuple[Tensor, Tensor, Tensor]:
    vocabulary, group = len(weight), groups.vocabulary
    rows = padded_vocabulary(vocabulary, groups.shards) // groups.shards
    filled = weight.new_zeros(rows * groups.shards, HIDDEN)
    filled[:vocabulary] = weight
    first = groups.shard * rows
    real = max(0, min(rows, vocabulary - first))
    shard = Shard(filled[first : first + rows], first, real, vocabulary)
    own = output.shard_labels(labels, gamma, shard)
    passed = output.s_pass(x, shard, own, rules)
    gathered = passed.local.new_empty(groups.shards, *passed.local.shape)
    dist.all_gather(list(gathered.unbind()), passed.local, group=group)
    found = output.combine(gathered, groups.shard, shard, own, rules)
    dw, dx = output.t_pass(x, passed, found, shard, own, rules)
    if dx is None:
        dx = output.early_gradient(passed, found, own, rules)
    dist.all_reduce(dx, group=group)
    whole = dw.new_empty(groups.shards, *dw.shape)
    dist.all_gather(list(whole.unbind()), dw, group=group)
    return found.loss, dx, whole.flatten(0, 1)[:vocabulary]


def _plain(
    x: Tensor, weight: Tensor, labels: Tensor, gamma: Tensor, smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    loss = F.cross_entropy(
        x @ weight.T, labels, reduction="none", ignore_index=IGNORED, label_smoothing=smoothing
    )
    loss.backward(gamma)
    assert x.grad is not None
    assert weight.grad is not None
    return loss.detach(), x.grad, weight.grad
