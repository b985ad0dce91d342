"""Why no plan fits into memory, and what would: every remedy named here has been tried."""

from collections.abc import Callable, Iterator

import msgspec

from puzzle.inputs.cluster import GIB
from puzzle.inputs.experiment import Experiment
from puzzle.inputs.layout import Layout
from puzzle.inputs.savings import Savings
from puzzle.inputs.workload import divisors
from puzzle.plan.space import layouts, most_devices, training_layouts
from puzzle.simulate.activations import cache
from puzzle.simulate.held import at_rest, held, states
from puzzle.simulate.learning import training
from puzzle.simulate.memory import generating
from puzzle.simulate.rates import rates_for

_ALL = Savings(recompute=True, shard_optimizer=True)
_TIMES = (2, 3, 4, 6, 8, 16)
"""Of the devices, what is tried as more of them."""


def refusal(experiment: Experiment, fits: Callable[[Experiment], bool]) -> str:
    """Return in a line why nothing fits, with numbers, and which changes make a plan fit."""
    capacity = experiment.machines.memory_gib
    kinds = (_precisions, _devices, _batches, _lengths)
    helping = [
        next((text for asked, text in kind(experiment) if fits(asked)), "") for kind in kinds
    ]
    found = ", or ".join(filter(None, helping))
    return (
        f"{experiment.name}: no plan fits into {capacity:g} GiB on {experiment.world} devices:"
        f" {_reason(experiment)};"
        f" {f'it would with {found}' if found else 'no number of devices, batch or length helps'}"
    )


def _reason(experiment: Experiment) -> str:
    """Say what the smallest plan needs, moment by moment."""
    actor, critic, kinds = (
        experiment.actor_model,
        experiment.critic_model,
        rates_for(experiment).kinds,
    )
    capacity, learns = experiment.machines.memory_gib * GIB, experiment.critic_learns
    world = most_devices(experiment)
    every = training_layouts(experiment, world)
    held_by = {
        layout: states(actor, critic, layout, kinds, critic_learns=learns, savings=_ALL)
        for layout in every
    }
    best = min(held_by, key=lambda layout: held_by[layout])
    if held_by[best] > capacity:
        weights = held(actor, critic, best, "merged", critic_learns=learns)
        fullest = float((weights.actor + weights.critic).max()) / best.data
        return (
            "weights, gradients and optimizer of all models alone are"
            f" {held_by[best] / GIB:.1f} GiB a device, by {best}, which shares them out best;"
            f" {kinds.optimizer * fullest / GIB:.1f} of them are main weights and moments, which"
            " stay on the device"
        )
    work = msgspec.structs.replace(
        experiment.work, micro_batch=1, decode_micro_batch=1, prefill_micro_batch=1
    )

    def learning(layout: Layout) -> float:
        return min(
            training(
                actor, critic, layout, work, "sequential", kinds,
                critic_learns=learns, savings=_ALL._replace(recompute=recompute),
            ).peak(0.0)
            for recompute in (False, True)
        )  # fmt: skip

    least = min(every, key=learning)
    if learning(least) > capacity:
        return (
            f"training with micro-batches of 1 needs {learning(least) / GIB:.1f} GiB, by {least}:"
            f" {held_by[least] / GIB:.1f} of weights, gradients and optimizer, the rest of"
            f" activations of {work.length} tokens, layers recomputed if that helps"
        )
    weights = held(actor, critic, best, "merged", critic_learns=learns)
    rest = float(at_rest(weights, kinds, best.data).max())
    makers = [
        layout
        for layout in layouts(world, experiment.machines.devices_per_node, actor)
        if work.batch % layout.data == 0
    ]
    maker = min(makers, key=lambda layout: generating(actor, layout, work, kinds))
    return (
        f"the models need {rest / GIB:.1f} GiB during generation and the KV cache of"
        f" {work.local(maker.data)} answers a replica {cache(actor, maker, work, kinds) / GIB:.1f},"
        f" by {maker}, beside the generation shard"
    )


_Tries = Iterator[tuple[Experiment, str]]
"""Changed questions of one kind, the least change first, and what was changed."""


def _precisions(experiment: Experiment) -> _Tries:
    if experiment.dtype in ("float32", "float64"):
        running = msgspec.structs.replace(experiment.running, dtype="bfloat16")
        yield msgspec.structs.replace(experiment, running=running), "running.dtype = bfloat16"


def _devices(experiment: Experiment) -> _Tries:
    running = msgspec.structs.replace(experiment.running, dtype=experiment.dtype)
    for times in _TIMES:
        devices = times * experiment.world
        most = max(devices, experiment.machines.devices)
        machines = msgspec.structs.replace(experiment.machines, devices=most)
        asked = msgspec.structs.replace(
            experiment, cluster=machines, devices=devices, running=running
        )
        yield asked, f"{devices} devices"


def _batches(experiment: Experiment) -> _Tries:
    size = experiment.work.batch
    while size > 1:
        size = divisors(experiment.work.batch, size // 2)[-1]
        less = msgspec.structs.replace(experiment.work, batch=size)
        yield msgspec.structs.replace(experiment, work=less), f"work.batch = {size}"


def _lengths(experiment: Experiment) -> _Tries:
    prompt, answer = experiment.work.prompt, experiment.work.answer
    while prompt > 1 and answer > 1:
        prompt, answer = prompt // 2, answer // 2
        less = msgspec.structs.replace(experiment.work, prompt=prompt, answer=answer)
        text = f"work.prompt = {prompt} and work.answer = {answer}"
        yield msgspec.structs.replace(experiment, work=less), text
