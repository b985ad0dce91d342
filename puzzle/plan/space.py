"""What a plan is chosen from: layouts, micro-batches and schedules, each with its stages' time.

Training and inference depend on the training layout, generation on the generation layout; only the
switch and memory join them. Micro-batches are all divisors of a replica's sequences.
"""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from common.errors import InputError
from puzzle.inputs.cluster import GIB
from puzzle.inputs.experiment import Experiment
from puzzle.inputs.layout import Layout
from puzzle.inputs.model import Llama, check_layout, parameters
from puzzle.inputs.savings import NONE, Savings
from puzzle.inputs.workload import Workload, divisors
from puzzle.plan.passes import ScheduleName
from puzzle.simulate.cost import decode_time, inference_time, prefill_time, training_time
from puzzle.simulate.held import at_rest, held
from puzzle.simulate.learning import Training, training
from puzzle.simulate.memory import generating, scoring
from puzzle.simulate.rates import rates_for
from puzzle.simulate.timeline import least_training


class Cut(NamedTuple):
    """A stage's micro-batches: its time and what they need beside the models at rest."""

    seconds: float
    work: Workload
    needed: float = 0.0
    savings: Savings = NONE


class Variant(NamedTuple):
    """The models of a training layout at rest, with all micro-batches, the shortest first.

    Of the fused schedule `seconds` are a bound, and memory is known when its order is.
    """

    rest: float
    """Bytes of the models on the fullest rank while none has gradients."""
    cuts: tuple[tuple[Cut, Training | None], ...]


class Learning(NamedTuple):
    """A training layout and schedule: with whole optimizers, then with sharded ones."""

    layout: Layout
    schedule: ScheduleName
    ways: tuple[Variant, ...]

    @property
    def seconds(self) -> float:
        """Of the shortest, with what may be only a bound."""
        return min(way.cuts[0][0].seconds for way in self.ways)


class Making(NamedTuple):
    """A generation layout with all its micro-batches, the shortest first."""

    layout: Layout
    cuts: tuple[Cut, ...]


def layouts(world: int, most_tensor: int, *models: Llama) -> Iterator[Layout]:
    """Yield every layout of `world` ranks that can hold the models.

    Tensor groups lie inside a node of `most_tensor` devices: their links are predicted as such.
    """
    for tensor in range(1, min(world, most_tensor) + 1):
        if world % tensor or (world > most_tensor and most_tensor % tensor):
            continue
        most = min(model.layers for model in models)
        for pipeline in divisors(world // tensor, most):
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


def training_layouts(experiment: Experiment, world: int) -> list[Layout]:
    """Return the layouts of `world` ranks that hold both models and cut the batch."""
    models = experiment.actor_model, experiment.critic_model
    every = layouts(world, experiment.machines.devices_per_node, *models)
    return [layout for layout in every if experiment.work.batch % layout.data == 0]


def most_devices(experiment: Experiment) -> int:
    """Return how many of the devices a layout can use: all of them, or as many as divide."""
    return next(w for w in range(experiment.world, 0, -1) if training_layouts(experiment, w))


def learnings(experiment: Experiment, world: int) -> Iterator[Learning]:
    """Yield training layouts and schedules with what fits of their micro-batches."""
    for layout in training_layouts(experiment, world):
        schedules: tuple[ScheduleName, ...] = ("merged", "sequential", "fused")
        # On one stage nothing is fused; sequential training is as long as merged and holds less.
        most = 2 if layout.pipeline == 1 else 3
        for schedule in schedules[: most if experiment.critic_learns else 1]:
            shards = (False, True) if layout.data > 1 else (False,)
            ways = (_variant(experiment, layout, schedule, shard=shard) for shard in shards)
            some = tuple(way for way in ways if way.cuts)
            if some:
                yield Learning(layout, schedule, some)


def _variant(
    experiment: Experiment, layout: Layout, schedule: ScheduleName, *, shard: bool
) -> Variant:
    actor, critic = experiment.actor_model, experiment.critic_model
    on, capacity = rates_for(experiment), experiment.machines.memory_gib * GIB
    learns = experiment.critic_learns
    weights = held(actor, critic, layout, schedule, critic_learns=learns)
    rest = float(at_rest(weights, on.kinds, layout.data if shard else 1).max())
    scored = _scored(experiment, layout, capacity - rest)
    cuts: list[tuple[Cut, Training | None]] = []
    if scored is None:
        return Variant(rest, ())
    most = 2 * parameters(actor) * on.kinds.weight  # of a generation shard that is made
    for size in divisors(experiment.work.local(layout.data)):
        for savings in (Savings(recompute, shard) for recompute in (False, True)):
            work = msgspec.structs.replace(scored.work, micro_batch=size)
            saving = on._replace(savings=savings)
            if schedule == "fused":
                seconds = least_training(actor, critic, layout, work, saving)
                cuts.append((Cut(scored.seconds + seconds, work, savings=savings), None))
                continue
            needed = training(
                actor, critic, layout, work, schedule, on.kinds,
                critic_learns=learns, savings=savings,
            )  # fmt: skip
            if needed.peak(0.0) <= capacity:
                merged = schedule == "merged"
                seconds = training_time(actor, critic, layout, work, saving, merged=merged)
                cuts.append((Cut(scored.seconds + seconds, work, savings=savings), needed))
            if needed.peak(most) <= capacity:
                break  # fits beside any shard, and recomputation takes longer
    return Variant(rest, tuple(sorted(cuts, key=lambda cut: cut[0].seconds)))


def _scored(experiment: Experiment, layout: Layout, free: float) -> Cut | None:
    """Return the inference stage's shortest micro-batch that fits, None where none does.

    Merged scoring is never longer than one model after the other, and holds as much.
    """
    actor, critic, work = experiment.actor_model, experiment.critic_model, experiment.work
    on, found = rates_for(experiment), list[Cut]()
    for size in divisors(work.local(layout.data)):
        if scoring(actor, layout, size, work.length, on.kinds) > free:
            break  # larger ones need more
        cut = msgspec.structs.replace(work, inference_tokens=size * work.length)
        found.append(Cut(inference_time(actor, critic, layout, cut, on, merged=True), cut))
    return min(found, key=lambda cut: cut.seconds, default=None)


def makings(experiment: Experiment, world: int) -> Iterator[Making]:
    """Yield generation layouts with what fits of their micro-batches."""
    actor, machines, given = experiment.actor_model, experiment.machines, experiment.work
    on = rates_for(experiment)
    for layout in layouts(world, machines.devices_per_node, actor):
        if given.batch % layout.data:
            continue
        decodes, prefills = dict[int, float](), dict[int, float]()
        for size in divisors(given.local(layout.data)):
            work = msgspec.structs.replace(given, decode_micro_batch=size, prefill_micro_batch=size)
            decodes[size] = decode_time(actor, layout, work, on)
            prefills[size] = prefill_time(actor, layout, work, on)
        cuts: list[Cut] = []
        for decode, later in decodes.items():
            for prefill in divisors(decode):
                work = msgspec.structs.replace(
                    given, decode_micro_batch=decode, prefill_micro_batch=prefill
                )
                needed = generating(actor, layout, work, on.kinds)
                if needed <= machines.memory_gib * GIB:
                    cuts.append(Cut(prefills[prefill] + later, work, needed))
        if cuts:
            yield Making(layout, tuple(sorted(cuts, key=lambda cut: cut.seconds)))
