"""Measure this machine's constants on pieces of the experiment's own actor, one device's worth.

Products, launches, backward passes, decoding and the bucket copy are measured here on one device; a
machine's links need several and keep the experiment's values, except on a CPU, where two gloo ranks
measure them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from common.artifact import Folder
from common.case import to_toml
from common.files import write
from common.ranks import run_ranks
from common.spread import cores
from puzzle.inputs.cluster import GB
from puzzle.inputs.experiment import Experiment
from puzzle.inputs.layout import Layout
from puzzle.inputs.model import Llama, layer_weights

_REPEATS, _WARM_UP = 5, 2
_LAYERS = 2
_LEAST = 1e-9


def profile(experiment: Experiment, folder: Folder, seed: int) -> tuple[list[Path], list[str]]:
    """Write the experiment with this machine's constants in it and say what they are.

    `seed` has no effect: what is computed on does not change how long it takes.
    """
    import torch

    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    if not cuda:
        torch.set_num_threads(max(1, cores() // experiment.world))
    measured = measure(experiment, device)
    if not cuda:
        measured |= _links(experiment)
    machines = experiment.machines
    constants = msgspec.structs.replace(machines.constants, **measured)
    name = torch.cuda.get_device_name() if cuda else "gloo ranks on this machine's cores"
    own = msgspec.structs.replace(machines, about=name, constants=constants)
    file = folder.at("profiles", f"{experiment.name}.toml")
    write(file, to_toml(msgspec.structs.replace(experiment, cluster=own)))
    told = [f"{name} = {value:.6g}" for name, value in measured.items()]
    return [file], [*told, f"an experiment with this machine's constants: {file}"]


def measure(experiment: Experiment, device: Any) -> dict[str, float]:
    """Return the constants that one device tells: of passes, decoding, and memory."""
    import torch

    dtype = torch.float16 if device.type == "cuda" else torch.float32
    peak = _product_flops(device, dtype)
    model = msgspec.structs.replace(experiment.actor_model, layers=_LAYERS, vocabulary=64)
    work = experiment.work
    launch = _pass_seconds(model, 1, 1, device, dtype)[0] / _LAYERS
    batch, length = work.micro_batch, work.length
    forward, backward = _pass_seconds(model, batch, length, device, dtype)
    tokens = batch * length
    flops = _LAYERS * tokens * (2 * layer_weights(model) + 4 * length * model.query_width)
    rate = min(peak, flops / max(_LEAST, forward - _LAYERS * launch))
    decode = _decode_seconds(model, work.decode_micro_batch, work.length, device, dtype) / _LAYERS
    read = 2 * layer_weights(model) / (_copy_rate(device, dtype))
    return {
        "peak_tflops": peak / 1e12,
        "efficiency": rate / peak,
        "launch_train_s": launch,
        "launch_infer_s": launch,
        "launch_decode_s": max(_LEAST, decode - read),
        "backward_factor": max(1.0, backward / forward),
        "memory_gbps": _copy_rate(device, dtype) / GB,
        "weight_reads": 1.0,
        "cache_reads": 1.0,
    }


def _seconds(action: Callable[[], object], device: Any) -> float:
    import torch

    times: list[float] = []
    for _ in range(_WARM_UP + _REPEATS):
        begin = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return median(times[_WARM_UP:])


def _product_flops(device: Any, dtype: Any) -> float:
    """Return FLOP/s of a large product."""
    import torch

    n = 8192 if device.type == "cuda" else 768
    a = torch.randn(n, n, device=device, dtype=dtype)
    return 2 * n**3 / _seconds(lambda: a @ a, device)


def _copy_rate(device: Any, dtype: Any) -> float:
    """Return bytes/s read and written by a copy within the device's memory."""
    import torch

    n = 2**28 if device.type == "cuda" else 2**23
    a, b = (torch.empty(n, device=device, dtype=dtype) for _ in range(2))
    return 2 * a.numel() * a.element_size() / _seconds(lambda: b.copy_(a), device)


def _stage(model: Llama, device: Any, dtype: Any) -> Any:
    from puzzle.run.stage import Stage
    from puzzle.run.weights import Store, random_weights

    groups: Any = _Alone()
    store = Store(model, "actor", groups, random_weights(0, "profile"), dtype, device, trained=True)
    return Stage(model, "actor", groups, store.weights)


class _Alone:
    """A place of its own: what `Groups` is without other ranks."""

    def __init__(self) -> None:
        self.layout = Layout()
        self.place = self.layout.place(0)
        self.tensor = self.data = self.model = None
        self.first = self.last = True


def _pass_seconds(
    model: Llama, batch: int, length: int, device: Any, dtype: Any
) -> tuple[float, float]:
    """Return the forward and the backward time of a micro-batch."""
    import torch

    from puzzle.run.stage import whole_tokens

    stage = _stage(model, device, dtype)
    ids = torch.zeros(batch, length, dtype=torch.long, device=device)
    tokens = whole_tokens(ids, torch.ones_like(ids))
    forward = _seconds(lambda: stage.forward(None, tokens), device)
    both = _seconds(lambda: stage.forward(None, tokens).float().sum().backward(), device)
    return forward, max(_LEAST, both - forward)


def _decode_seconds(model: Llama, batch: int, length: int, device: Any, dtype: Any) -> float:
    """Return the time of one decode step in the middle of an answer."""
    import torch

    from puzzle.run.stage import Tokens

    stage = _stage(model, device, dtype)
    cache = stage.new_cache(batch, length, dtype)
    begin = length * 3 // 4
    ids = torch.zeros(batch, 1, dtype=torch.long, device=device)
    valid = torch.ones(batch, begin + 1, dtype=torch.long, device=device)
    tokens = Tokens(ids, valid, torch.full_like(ids, begin))

    def step() -> None:
        cache.begin = begin
        with torch.no_grad():
            stage.forward(None, tokens, cache)

    return _seconds(step, device)


def _links(experiment: Experiment) -> dict[str, float]:
    """Return what two gloo ranks measure of their links."""
    return run_ranks(measure_links, 2, experiment.actor_model.hidden, eager=False)[0]


def measure_links(rank: int, report: object, hidden: int) -> dict[str, float]:
    """Return message and all-reduce constants; a rank's task."""
    import torch
    import torch.distributed as dist

    cpu = torch.device("cpu")
    small, large = torch.zeros(hidden), torch.zeros(2**20)

    def exchange(x: torch.Tensor) -> None:
        if rank == 0:
            dist.send(x, 1)
            dist.recv(x, 1)
        else:
            dist.recv(x, 0)
            dist.send(x, 0)

    hop, long = (_seconds(lambda x=x: exchange(x), cpu) / 2 for x in (small, large))
    short, wide = (_seconds(lambda x=x: dist.all_reduce(x), cpu) for x in (small, large))
    size = 4 * large.numel()
    return {
        "p2p_latency_s": hop,
        "decode_p2p_s": hop,
        "message_s": hop,
        "p2p_gbps": size / max(_LEAST, long - hop) / GB,
        "gather_gbps": size / max(_LEAST, long - hop) / GB,
        "allreduce_latency_s": short,
        "decode_allreduce_s": short,
        "allreduce_gbps": size / max(_LEAST, wide - short) / GB,
    }
