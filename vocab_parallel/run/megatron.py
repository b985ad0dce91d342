"""Our sharded output layer beside megatron-core's parallel linear and cross-entropy, on CPU ranks.

The only place that imports megatron-core (0.16.1). Its cross-entropy computes in float32.
"""

import warnings
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from common.errors import InputError
from vocab_parallel.run import output
from vocab_parallel.run.output import Rules, Shard

TOKENS, HIDDEN, ROWS = 24, 16, 20


class Differences(NamedTuple):
    """Largest difference of the losses in nat; relative (Frobenius) of the gradients."""

    loss: float
    dx: float
    dw: float


def cross_check(rank: int, report: object) -> Differences:
    """Return how far both are apart; called on every rank of a fresh process group."""
    generator = torch.Generator().manual_seed(rank)
    weight = torch.randn(ROWS, HIDDEN, generator=generator)
    shared = torch.Generator().manual_seed(99)
    x = torch.randn(TOKENS, 1, HIDDEN, generator=shared)
    labels = torch.randint(0, ROWS * dist.get_world_size(), (TOKENS, 1), generator=shared)
    theirs = _megatron(x, weight, labels)
    ours = _ours(rank, x[:, 0], weight, labels[:, 0])
    return Differences(
        float((ours[0] - theirs[0]).abs().max()),
        float((ours[1] - theirs[1]).norm() / theirs[1].norm()),
        float((ours[2] - theirs[2]).norm() / theirs[2].norm()),
    )


def _ours(rank: int, x: Tensor, weight: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    world, rules = dist.get_world_size(), Rules("vocab-1")
    shard = Shard(weight, rank * ROWS, ROWS, ROWS * world)
    own = output.shard_labels(labels, torch.ones(TOKENS), shard)
    passed = output.s_pass(x, shard, own, rules)
    gathered = passed.local.new_empty(world, *passed.local.shape)
    dist.all_gather(list(gathered.unbind()), passed.local)
    found = output.combine(gathered, rank, shard, own, rules)
    dw, dx = output.t_pass(x, passed, found, shard, own, rules)
    assert dx is not None
    dist.all_reduce(dx)
    return found.loss, dx, dw


def _megatron(x: Tensor, weight: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kernels that it would take on a GPU
        try:
            from megatron.core import parallel_state
            from megatron.core.model_parallel_config import ModelParallelConfig
            from megatron.core.tensor_parallel.cross_entropy import vocab_parallel_cross_entropy
            from megatron.core.tensor_parallel.layers import ColumnParallelLinear
        except ImportError as error:
            raise InputError("megatron-core is not installed (extra vocab-parallel)") from error
        world = dist.get_world_size()
        parallel_state.initialize_model_parallel(tensor_model_parallel_size=world)
        config = ModelParallelConfig(
            tensor_model_parallel_size=world, use_cpu_initialization=True, params_dtype=x.dtype
        )
        linear = ColumnParallelLinear(
            HIDDEN,
            ROWS * world,
            config=config,
            init_method=torch.nn.init.zeros_,
            bias=False,
            gather_output=False,
        )
    matrix = linear.weight
    assert matrix is not None
    with torch.no_grad():
        matrix.copy_(weight)
    x = x.clone().requires_grad_()
    logits, _ = linear(x)
    loss = vocab_parallel_cross_entropy(logits, labels)
    loss.sum().backward()
    assert x.grad is not None
    assert matrix.grad is not None
    return loss.detach()[:, 0], x.grad[:, 0], matrix.grad
