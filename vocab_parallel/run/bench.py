"""One device's speeds, in the terms of the pass-time model (`vocab_parallel.inputs.machine`).

Measured on pieces of the experiment's own model: one layer, one shard, the optimizer.
"""

import os
import time
from collections.abc import Callable
from statistics import median

import torch

from vocab_parallel.inputs.experiment import Experiment
from vocab_parallel.inputs.machine import Machine, width_factor
from vocab_parallel.inputs.model import layer_forward_flops, layer_parameters, padded_vocabulary
from vocab_parallel.run.input import InputShard, add_gradient, look_up
from vocab_parallel.run.model import Stage
from vocab_parallel.run.output import Algorithm, Rules, Shard, combine, s_pass, shard_labels, t_pass
from vocab_parallel.run.weights import Store

_REPEATS, _WARM_UP = 5, 2
_LEAST_S = 1e-9
_SQUARE = {"cpu": 512, "cuda": 8192}


def measure_machine(experiment: Experiment, device: torch.device, seed: int) -> Machine:
    """Return this device's constants; links keep the A100 node's, which one device cannot tell."""
    model, base = experiment.model, experiment.rank_machine
    dtype: torch.dtype = getattr(torch, experiment.training.dtype)
    layer_s = _layer_seconds(experiment, device, dtype, seed)
    rate = 3 * layer_forward_flops(model) * experiment.pipeline.batch_size / layer_s / 1e12
    shard = _Output(experiment, device, dtype)
    whole, half = shard.seconds("vocab-1"), shard.seconds("vocab-1", 0.5)
    slope = max(2 * (whole[0] + whole[1] - half[0] - half[1]), _LEAST_S)
    fixed = max(whole[0] + whole[1] - slope, _LEAST_S)
    second = sum(shard.seconds("vocab-2"))
    flops = 6 * shard.tokens * model.hidden * shard.rows
    input_s, gradient_s = _input_seconds(experiment, device, dtype)
    size = shard.rows * model.hidden * dtype.itemsize
    return Machine(
        about=f"{_name(device)}, measured on {experiment.name}",
        peak_tflops=_peak_tflops(device, dtype),
        memory_gib=_memory_gib(device),
        node_ranks=base.node_ranks,
        sequences=(model.sequence,),
        layer_tflops=(rate / width_factor(model.hidden, base.hidden_saturation),),
        input_ms=(1e3 * input_s / experiment.pipeline.batch_size,),
        output_tflops=flops / slope / 1e12 / width_factor(model.hidden, base.output_saturation),
        output_fixed_ms=1e3 * fixed / (shard.tokens / 1024),
        output_forward_share=whole[0] / (whole[0] + whole[1]),
        vocab_2_factor=max((second - fixed) / slope, _LEAST_S),
        overlap_vocab=1.0,
        overlap_interlaced=1.0,
        step_ms=1e3 * _update_seconds(experiment, device),
        embedding_gb_s=size / gradient_s / 1e9,
        collective_gb_s=base.collective_gb_s,
        network_gb_s=base.network_gb_s,
        p2p_ms=base.p2p_ms,
    )


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Return the median seconds of some work after a warm-up."""
    taken: list[float] = []
    for number in range(_REPEATS + _WARM_UP):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if number >= _WARM_UP:
            taken.append(time.perf_counter() - start)
    return max(median(taken), _LEAST_S)


def _layer_seconds(
    experiment: Experiment, device: torch.device, dtype: torch.dtype, seed: int
) -> float:
    model, count = experiment.model, experiment.pipeline.batch_size
    stage = Stage(model, Store(dtype, device, seed), layers=range(1), first=False, last=False)
    x = torch.randn(count, model.sequence, model.hidden, dtype=dtype, device=device)

    def work() -> None:
        y = stage.forward(x.detach().requires_grad_())
        stage.backward(y, x, keep_work=False)

    return timed(work, device)


class _Output:
    """One rank's shard of the output layer."""

    def __init__(self, experiment: Experiment, device: torch.device, dtype: torch.dtype) -> None:
        model, ranks = experiment.model, experiment.pipeline.ranks
        self.device = device
        self.tokens = experiment.pipeline.batch_size * model.sequence
        self.rows = padded_vocabulary(model.vocabulary, ranks) // ranks
        self.x = torch.randn(self.tokens, model.hidden, dtype=dtype, device=device)
        self.weight = torch.randn(self.rows, model.hidden, dtype=dtype, device=device) * 0.02

    def seconds(self, algorithm: Algorithm, part: float = 1.0) -> tuple[float, float]:
        """Return S and T with a part of the rows."""
        rows, rules = max(2, int(self.rows * part)), Rules(algorithm)
        shard = Shard(self.weight[:rows], 0, rows, rows)
        labels = torch.arange(self.tokens, device=self.device) % rows
        own = shard_labels(labels, torch.ones(self.tokens, device=self.device), shard)
        passed = s_pass(self.x, shard, own, rules)
        found = combine(passed.local[None], 0, shard, own, rules)
        s = timed(lambda: s_pass(self.x, shard, own, rules), self.device)
        t = timed(lambda: t_pass(self.x, passed, found, shard, own, rules), self.device)
        return s, t


def _input_seconds(
    experiment: Experiment, device: torch.device, dtype: torch.dtype
) -> tuple[float, float]:
    model, shard = experiment.model, _Output(experiment, device, dtype)
    ids = torch.randint(0, model.vocabulary, (shard.tokens,), device=device)
    rows = InputShard(shard.weight, 0)
    gradient = torch.zeros_like(shard.weight)
    forward = timed(lambda: look_up(ids, rows), device)
    return forward, timed(lambda: add_gradient(gradient, ids, shard.x, rows), device)


def _update_seconds(experiment: Experiment, device: torch.device) -> float:
    """Return AdamW's time for one rank's share of the layers and the vocabulary."""
    model, ranks = experiment.model, experiment.pipeline.ranks
    count = model.layers * layer_parameters(model) + 2 * model.vocabulary * model.hidden
    probe = min(count // ranks, 2**24)
    weight = torch.zeros(probe, device=device)
    weight.grad = torch.ones_like(weight)
    optimizer = torch.optim.AdamW([weight])
    return timed(optimizer.step, device) * (count / ranks / probe)


def _peak_tflops(device: torch.device, dtype: torch.dtype) -> float:
    side = _SQUARE[device.type]
    a = torch.randn(side, side, dtype=dtype, device=device)
    return 2 * side**3 / timed(lambda: a @ a, device) / 1e12


def _memory_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 2**30
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
