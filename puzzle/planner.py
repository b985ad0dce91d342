"""The planner: layouts, micro-batches and schedules with the shortest predicted step in memory.

Training and inference depend on the training layout, generation on the generation layout; only the
switch and memory join them. So both lists are made once, sorted, and joined best sum first, until
no remaining sum can beat the best whole step: exhaustive within the space, by the cost model.

Merged training is predicted in closed form, fused by playing its pass list. Finding and playing a
fused order takes up to seconds, so only those are played whose full pipeline, without any gap,
would be short enough for the best plans found without them.
"""

import heapq
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from common.errors import InputError
from puzzle.inputs.experiment import Choice, Experiment
from puzzle.inputs.layout import Layout
from puzzle.inputs.model import Llama, check_layout
from puzzle.inputs.workload import Workload
from puzzle.plan.passes import ScheduleName
from puzzle.plan.plans import Plan, make_plan
from puzzle.simulate.cost import generation_time, inference_time, training_time
from puzzle.simulate.memory import cache, flying, states
from puzzle.simulate.predict import Predicted, fused_time, predict
from puzzle.simulate.timeline import least_training

GIB = 2**30
MICRO_MOST, DECODE_MOST = 8, 256
"""Largest micro-batches that are tried, of training and of decoding."""
SHOWN = 8
FUSED_AT_MOST = 2048
"""Largest stages x micro-batches for which a fused order is sought (half a second each)."""


class Option(NamedTuple):
    """A side of the search: a layout and micro-batches with its stages' time."""

    seconds: float
    layout: Layout
    work: Workload
    schedule: ScheduleName = "merged"


class Candidate(NamedTuple):
    """A whole plan with its prediction."""

    plan: Plan
    predicted: Predicted


def layouts(world: int, most_tensor: int, *models: Llama) -> Iterator[Layout]:
    """Yield every layout of `world` ranks that can hold the models.

    Tensor groups lie inside a node of `most_tensor` devices: their links are predicted as such.
    """
    for tensor in range(1, min(world, most_tensor) + 1):
        if world > most_tensor and most_tensor % tensor:
            continue
        for pipeline in range(1, world // tensor + 1):
            if world % (tensor * pipeline) == 0:
                layout = Layout(pipeline=pipeline, tensor=tensor, data=world // (tensor * pipeline))
                if _holds(layout, *models):
                    yield layout


def _holds(layout: Layout, *models: Llama) -> bool:
    try:
        for model in models:
            check_layout(model, layout)
    except InputError:
        return False
    return True


def search(experiment: Experiment) -> list[Candidate]:
    """Return the best plans, shortest step first; refuses an experiment where nothing fits."""
    capacity = experiment.machines.memory_gib * GIB
    trainings, generations = _trainings(experiment, capacity), _generations(experiment)
    found: list[tuple[float, int, Candidate]] = []
    _join(experiment, trainings, generations, found)
    longest = -found[0][0] if len(found) == SHOWN else float("inf")
    if generations:
        fused = _fused(experiment, capacity, longest - generations[0].seconds)
        _join(experiment, fused, generations, found)
    if not found:
        _check_possible(experiment)
        raise InputError(
            f"{experiment.name}: no plan fits into {experiment.machines.memory_gib:g} GiB on"
            f" {experiment.world} devices; use more devices or a smaller model or batch"
        )
    return [candidate for _, _, candidate in sorted(found, reverse=True)]


def _check_possible(experiment: Experiment) -> None:
    """Raise InputError where no layout holds the models or cuts the batch, whatever the memory."""
    actor, critic, world = experiment.actor_model, experiment.critic_model, experiment.world
    batch, most = experiment.work.batch, experiment.machines.devices_per_node
    for what, models in (("train", (actor, critic)), ("generate", (actor,))):
        found = list(layouts(world, most, *models))
        if not any(batch % layout.data == 0 for layout in found):
            raise InputError(
                f"{experiment.name}: no layout of {world} devices can {what}: pipeline x tensor x"
                f" data is {world}, pipeline at most the layers"
                f" ({min(model.layers for model in models)}), tensor divides heads, kv_heads, ffn"
                f" and vocabulary and fits into a node of {most}, data divides work.batch"
                f" ({batch}); change devices or work.batch"
            )


def _join(
    experiment: Experiment,
    trainings: list[Option],
    generations: list[Option],
    found: list[tuple[float, int, Candidate]],
) -> None:
    """Put the best plans of both lists into `found`, a heap with the longest step on top."""
    capacity, before = experiment.machines.memory_gib * GIB, len(found)
    for tried, (bound, i, j) in enumerate(_pairs(trainings, generations), before):
        if len(found) == SHOWN and bound >= -found[0][0]:
            break
        candidate = _candidate(experiment, trainings[i], generations[j])
        if candidate.predicted.memory.peak <= capacity:
            entry = (-candidate.predicted.times.step, -tried, candidate)
            (heapq.heappushpop if len(found) == SHOWN else heapq.heappush)(found, entry)


def _pairs(a: list[Option], b: list[Option]) -> Iterator[tuple[float, int, int]]:
    """Yield pairs of two sorted lists, smallest sum first."""
    if not a or not b:
        return
    heap = [(a[0].seconds + b[0].seconds, 0, 0)]
    while heap:
        total, i, j = heapq.heappop(heap)
        yield total, i, j
        if j + 1 < len(b):
            heapq.heappush(heap, (a[i].seconds + b[j + 1].seconds, i, j + 1))
        if j == 0 and i + 1 < len(a):
            heapq.heappush(heap, (a[i + 1].seconds + b[0].seconds, i + 1, 0))


def _trainings(experiment: Experiment, capacity: float) -> list[Option]:
    """Return training layouts and micro-batches whose own memory fits.

    Merged training is never longer than one model after the other, and holds as much.
    """
    actor, critic, c = (
        experiment.actor_model,
        experiment.critic_model,
        experiment.machines.constants,
    )
    found: list[Option] = []
    for layout, work in _fitting(experiment, capacity, fused=False):
        scoring = inference_time(actor, critic, layout, work, c, merged=True)
        training = training_time(actor, critic, layout, work, c, merged=True)
        found.append(Option(scoring + training, layout, work))
    return sorted(found, key=lambda option: option.seconds)


def _fused(experiment: Experiment, capacity: float, within: float) -> list[Option]:
    """Return the same trained by the fused schedule, where that may end `within` seconds."""
    actor, critic, c = (
        experiment.actor_model,
        experiment.critic_model,
        experiment.machines.constants,
    )
    found: list[Option] = []
    for layout, work in _fitting(experiment, capacity, fused=True):
        batches = work.local(layout.data) // work.micro_batch
        if layout.pipeline == 1 or layout.pipeline * batches > FUSED_AT_MOST:
            continue
        scoring = inference_time(actor, critic, layout, work, c, merged=True)
        if scoring + least_training(actor, critic, layout, work, c) < within:
            sizes = work.batch, work.micro_batch, work.length
            training = fused_time(actor, critic, layout, *sizes, c)
            found.append(Option(scoring + training, layout, work, "fused"))
    return sorted(found, key=lambda option: option.seconds)


def _fitting(
    experiment: Experiment, capacity: float, *, fused: bool
) -> Iterator[tuple[Layout, Workload]]:
    """Yield training layouts and micro-batches whose states and activations fit."""
    actor, critic = experiment.actor_model, experiment.critic_model
    for layout in layouts(experiment.world, experiment.machines.devices_per_node, actor, critic):
        if experiment.work.batch % layout.data:
            continue
        free = capacity - states(actor, critic, layout, fused=fused)
        for size in divisors(experiment.work.local(layout.data), MICRO_MOST):
            work = msgspec.structs.replace(experiment.work, micro_batch=size)
            if flying(actor, critic, layout, work, fused=fused) <= free:
                yield layout, work


def _generations(experiment: Experiment) -> list[Option]:
    """Return generation layouts and micro-batches."""
    actor, machines = experiment.actor_model, experiment.machines
    found: list[Option] = []
    for layout in layouts(experiment.world, machines.devices_per_node, actor):
        work = experiment.work
        if work.batch % layout.data or cache(actor, layout, work) > machines.memory_gib * GIB:
            continue
        for size in divisors(work.local(layout.data), DECODE_MOST):
            prefill = divisors(size, work.prefill_micro_batch)[-1]
            cut = msgspec.structs.replace(
                work, decode_micro_batch=size, prefill_micro_batch=prefill
            )
            seconds = generation_time(actor, layout, cut, machines.constants)
            found.append(Option(seconds, layout, cut))
    return sorted(found, key=lambda option: option.seconds)


def divisors(count: int, most: int) -> list[int]:
    """Return the sizes up to `most` that cut `count` sequences without rest, smallest first."""
    return [size for size in range(1, min(count, most) + 1) if count % size == 0]


def _candidate(experiment: Experiment, train: Option, generate: Option) -> Candidate:
    work = msgspec.structs.replace(
        experiment.work,
        micro_batch=train.work.micro_batch,
        decode_micro_batch=generate.work.decode_micro_batch,
        prefill_micro_batch=generate.work.prefill_micro_batch,
    )
    choice = Choice(
        training=train.layout,
        generation=generate.layout,
        mapping="overlap",
        schedule=train.schedule,
        inference="merged",
    )
    asked = msgspec.structs.replace(experiment, work=work)
    plan = make_plan(asked, "auto", choice)
    return Candidate(plan, predict(plan, experiment.machines))
