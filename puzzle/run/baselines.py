"""The other engines' switches on the same ranks and weights: whole weights by all-gather."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from statistics import median

import torch
import torch.distributed as dist
from torch import Tensor

from puzzle.inputs.layout import Layout, Place, stage_layers
from puzzle.inputs.model import parameters
from puzzle.plan import volumes
from puzzle.plan.plans import Plan
from puzzle.plan.reshard import make_reshard_plan
from puzzle.plan.slices import Slice, held
from puzzle.run.settings import Moved
from puzzle.run.switch import gather
from puzzle.run.train import Trainer

REPEATS = 3

Way = Callable[[], tuple[dict[str, Tensor], int, int]]
"""Returns weights, bytes received, and messages."""


def measure_switches(trainer: Trainer) -> tuple[Moved, ...]:
    """Return what the plan's switch and the gathers do, each a few times; all ranks call it.

    `exact`: each way's weights equal, bit by bit, what the gather over all ranks gave.
    """
    plan, me = trainer.plan, dist.get_rank()
    whole, _ = _gather_all(trainer)
    own = _generation_slices(trainer)
    width = next(iter(whole.values())).element_size()
    found: list[Moved] = []

    def add(engine: str, planned: int, way: Way, wanted: tuple[Slice, ...] = own) -> None:
        expected = {part.tensor.name: _cut(whole[part.tensor.name], part) for part in wanted}
        made, got, count = way()  # the first pays for connections
        times = [_timed(trainer, way) for _ in range(REPEATS)]
        same = all(
            torch.equal(_cut_like(made[name], want, part), want)
            for part in wanted
            for name, want in [(part.tensor.name, expected[part.tensor.name])]
        )
        every: list[tuple[int, int, int, float, bool]] = [(0, 0, 0, 0.0, False)] * plan.world
        dist.all_gather_object(every, (got, planned, count, median(times), same))
        got_all, planned_all, counts, seconds, exact = zip(*every, strict=True)
        found.append(
            Moved(
                engine=engine,
                received=got_all,
                planned=planned_all,
                messages=counts,
                seconds=max(seconds),
                exact=all(exact),
            )
        )

    if trainer.switcher is not None:
        moves = make_reshard_plan(
            plan.choice.training, plan.choice.generation, plan.actor, plan.choice.mapping
        )

        def switch() -> tuple[dict[str, Tensor], int, int]:
            made = trainer.shard()
            return made, trainer.counted.received, trainer.counted.messages

        add("puzzle", width * moves.received(me), switch)
    size = width * parameters(plan.actor)
    train = plan.choice.training
    add("deepspeed-chat", round(volumes.deepspeed_chat(train).received * size),
        lambda: (*_gather_all(trainer), 1))  # fmt: skip
    add("hybridflow-v", round(volumes.hybridflow_v(train).received * size),
        lambda: (*_gather_replica(trainer), 1))  # fmt: skip
    generate = plan.choice.generation
    groups = micro_replicas(train, generate, plan.actor.layers)
    if groups:
        made = [_group(trainer, ranks) for ranks in groups]  # every rank makes all, in one order
        (number,) = [n for n, ranks in enumerate(groups) if me in ranks]
        place = train.place(me)
        shard = held(plan.actor, "actor", generate,
            place.stage * generate.pipeline // train.pipeline,
            place.slice * generate.tensor // train.tensor)  # fmt: skip
        add("hybridflow", round(volumes.hybridflow(train, generate).received * size),
            lambda: (*_gather_among(trainer, groups[number], made[number]), 1), shard)  # fmt: skip
    return tuple(found)


def micro_replicas(train: Layout, generate: Layout, layers: int) -> list[list[int]]:
    """Return the ranks whose training shards make one generation shard, as HybridFlow groups them.

    Only where each generation shard is of whole training shards: P' divides P, T' divides T, stages
    lie inside stages and fewer ranks hold a replica. Elsewhere that engine cannot switch, and the
    list is empty.
    """
    p, rest = divmod(train.pipeline, generate.pipeline)
    t, more = divmod(train.tensor, generate.tensor)
    if rest or more or p * t == 1:
        return []
    for stage in range(generate.pipeline):
        ends = [stage_layers(layers, train.pipeline, n) for n in (stage * p, (stage + 1) * p - 1)]
        if stage_layers(layers, generate.pipeline, stage) != range(ends[0].start, ends[1].stop):
            return []
    found: dict[tuple[int, int, int], list[int]] = {}
    for rank, place in enumerate(train.places()):
        key = place.replica, place.stage // p, place.slice // t
        found.setdefault(key, []).append(rank)
    return list(found.values())


def _group(trainer: Trainer, ranks: list[int]) -> dist.ProcessGroup:
    timeout = timedelta(seconds=trainer.job.running.timeout_s)
    made = dist.new_group(ranks, timeout=timeout)
    assert made is not None
    return made  # type: ignore[return-value]


def _timed(trainer: Trainer, way: Way) -> float:
    dist.barrier()
    begin = time.perf_counter()
    way()
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def _cut(whole: Tensor, part: Slice) -> Tensor:
    axis = part.tensor.axis
    return whole if axis is None else whole.narrow(axis, part.start, part.stop - part.start)


def _cut_like(made: Tensor, like: Tensor, part: Slice) -> Tensor:
    return made if made.shape == like.shape else _cut(made, part)


def _generation_slices(trainer: Trainer) -> tuple[Slice, ...]:
    place, layout = trainer.making.place, trainer.making.layout
    return held(trainer.plan.actor, "actor", layout, place.stage, place.slice)


def _slices_at(plan: Plan, rank: int) -> dict[str, Slice]:
    layout = plan.choice.training
    place = layout.place(rank)
    parts = held(plan.actor, "actor", layout, place.stage, place.slice)
    return {part.tensor.name: part for part in parts}


def _gather_all(trainer: Trainer) -> tuple[dict[str, Tensor], int]:
    """Gather over all ranks, each giving its part of its shard, as ZeRO-3 does."""
    plan, store = trainer.plan, trainer.stores["actor"]
    layout = plan.choice.training
    ranks = [
        layout.rank(Place(p, d, t))
        for p in range(layout.pipeline)
        for t in range(layout.tensor)
        for d in range(layout.data)
    ]
    every = [_slices_at(plan, rank) for rank in ranks]
    group = dist.group.WORLD if len(ranks) > 1 else None
    part = trainer.groups.place.replica, layout.data
    return gather(store.detached(), store.slices, every, ranks, part, group)


def _gather_replica(trainer: Trainer) -> tuple[dict[str, Tensor], int]:
    """Gather inside a training replica, as HybridFlow-V does."""
    layout, d = trainer.plan.choice.training, trainer.groups.place.replica
    ranks = [
        layout.rank(Place(p, d, t)) for p in range(layout.pipeline) for t in range(layout.tensor)
    ]
    return _gather_among(trainer, ranks, trainer.groups.model)


def _gather_among(
    trainer: Trainer, ranks: list[int], group: dist.ProcessGroup | None
) -> tuple[dict[str, Tensor], int]:
    """Gather what some ranks hold, whole shards of each."""
    store = trainer.stores["actor"]
    every = [_slices_at(trainer.plan, rank) for rank in ranks]
    return gather(store.detached(), store.slices, every, ranks, (0, 1), group)
