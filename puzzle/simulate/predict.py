"""What a plan's step takes: stage times in closed form, memory, and the timeline beside them."""

from functools import lru_cache
from typing import NamedTuple

from puzzle.inputs.cluster import GB, Cluster
from puzzle.inputs.layout import Layout
from puzzle.inputs.model import Llama
from puzzle.inputs.workload import Workload
from puzzle.plan.plans import Plan, Switch
from puzzle.simulate.cost import (
    Prediction,
    generation_time,
    inference_time,
    switch_time,
    training_time,
)
from puzzle.simulate.memory import Memory, memory
from puzzle.simulate.rates import Rates, rates_of
from puzzle.simulate.timeline import play_training

CLOSED, PLAYED = "closed form", "timeline"
"""How a training stage's time is predicted: in closed form, or by playing its pass list."""


class Predicted(NamedTuple):
    """Stage times in seconds, and a device's memory in bytes."""

    times: Prediction
    memory: Memory


def how_trained(plan: Plan) -> str:
    """Return how the training stage's time is predicted.

    The specification has a closed form for the sequential and the merged schedule only; the fused
    one's time is its timeline.
    """
    return PLAYED if plan.choice.schedule == "fused" else CLOSED


def _training(plan: Plan, on: Rates) -> float:
    if how_trained(plan) == PLAYED:
        work = plan.work
        again = on._replace(savings=on.savings._replace(shard_optimizer=False))  # of no matter
        return fused_time(
            plan.actor,
            plan.critic,
            plan.choice.training,
            work.batch,
            work.micro_batch,
            work.length,
            again,
        )
    return training_time(
        plan.actor,
        plan.critic,
        plan.choice.training,
        plan.work,
        on,
        merged=plan.choice.schedule == "merged",
        steps_critic=not plan.released,
    )


@lru_cache(maxsize=4096)
def fused_time(
    actor: Llama, critic: Llama, layout: Layout, batch: int, micro: int, length: int, on: Rates
) -> float:
    """Return the fused training stage's time: its pass list played."""
    work = Workload(batch=batch, micro_batch=micro, prompt=1, answer=length - 1)
    return play_training("fused", actor, critic, layout, work, on).seconds


def switched(switch: Switch | None, on: Rates, *, released: bool = False) -> float:
    """Return the time of a switch, 0 where there is none."""
    if switch is None:
        return 0.0
    if released:
        return switch_time(on, max(switch.received))
    slower = on.c.gather_gbps * GB / on.between - 1
    ways = (switch.received, switch.from_nodes), (switch.sent, switch.to_nodes)
    # Links carry both ways at once; what goes between nodes counts as so much more.
    fullest = max(
        size + slower * far
        for sizes, between in ways
        for size, far in zip(sizes, between, strict=True)
    )
    return switch_time(on, fullest, max(1, *switch.messages))


def held_beside(switch: Switch | None) -> tuple[float, float]:
    """Return the bytes of the next generation shard, and of what is held while it is made."""
    return (float(switch.beside), float(switch.making)) if switch else (0.0, 0.0)


def predict(plan: Plan, cluster: Cluster) -> Predicted:
    """Return a plan's stage times and memory on a cluster."""
    on, choice = rates_of(plan, cluster), plan.choice
    beside, switching = held_beside(plan.switch)
    times = Prediction(
        generation=generation_time(plan.actor, choice.generation, plan.work, on),
        switch=switched(plan.switch, on, released=plan.released),
        inference=inference_time(
            plan.actor,
            plan.critic,
            choice.training,
            plan.work,
            on,
            merged=choice.inference == "merged",
        ),
        training=_training(plan, on),
    )
    used = memory(
        plan.actor,
        plan.critic,
        (choice.training, choice.generation),
        plan.work,
        beside,
        switching,
        choice.schedule,
        on.kinds,
        critic_learns=on.critic_learns,
        savings=choice.savings,
    )
    return Predicted(times, used)
