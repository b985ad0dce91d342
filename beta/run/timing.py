"""Time the stages that are served, each alone; with a tensor degree, as one rank of its group."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.distributed as dist

from beta.inputs.profile import Config, Row
from beta.inputs.shapes import Shape
from beta.run.stage import Place, Shard, Stage, make_stage
from beta.run.worker import tokens_of

LONG_S = 5.0
"""A stage that takes longer is timed once."""
WARM_UPS = 2


class Task(NamedTuple):
    """A shape and the configs to time it under, all with one tensor degree."""

    kind: str
    shape: Shape
    layers: int
    op: int
    depths: tuple[int, ...]
    batches: tuple[int, ...]
    runs: int


class _Timed(NamedTuple):
    seconds: dict[int, float]
    """By batch size."""
    weight_bytes: float


def time_rank(rank: int, report: Callable[..., None], task: Task) -> list[Row]:
    """Time as one of `op` ranks (`common.ranks`), which add up as they do when serving."""
    return time_stages(task, rank)


def time_stages(task: Task, rank: int = 0) -> list[Row]:
    """Return a row for every stage of every depth and batch; equal stages are timed once."""
    place, rows = _place(), list[Row]()
    torch.set_num_threads(1)
    for depth in task.depths:
        known = dict[tuple[int, bool, bool], _Timed]()
        for number in range(depth):
            shard = Shard(number, depth, rank, task.op)
            held = len(shard.layers(task.layers))
            key = (held, number == 0, number == depth - 1)
            if key not in known:
                stage = make_stage(task.shape, 0, shard, place, _total if task.op > 1 else _same)
                known[key] = _time(stage, task)
            for batch, seconds in known[key].seconds.items():
                config = Config(task.op, depth)
                weight = known[key].weight_bytes
                rows.append(Row(task.kind, config, batch, number, seconds, weight))
    return rows


def _place() -> Place:
    if torch.cuda.is_available():
        return Place(torch.device("cuda", torch.cuda.current_device()), torch.float16)
    return Place(torch.device("cpu"), torch.float32)


@torch.inference_mode()
def _time(stage: Stage, task: Task) -> _Timed:
    seconds = dict[int, float]()
    for batch in task.batches:
        ids = torch.tensor([tokens_of(task.shape)] * batch, device=_place().device)
        given = ids if stage.first else stage.activations(batch, task.shape.sequence).zero_()
        seconds[batch] = _median_s(lambda x=given: stage(x), task.runs, alone=task.op == 1)
    return _Timed(seconds, float(stage.weight_bytes()))


def _median_s(run: Callable[[], object], runs: int, *, alone: bool) -> float:
    """Return the median; ranks that add up must all run as often, so they never stop early."""
    times = list[float]()
    while len(times) < WARM_UPS + runs:
        begun = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
        if alone and times[-1] > LONG_S:
            return times[-1]
    kept = sorted(times[WARM_UPS:])
    return kept[len(kept) // 2]


def _total(x: torch.Tensor) -> torch.Tensor:
    dist.all_reduce(x)
    return x


def _same(x: torch.Tensor) -> torch.Tensor:
    return x
