"""What a plan's step takes: stage times in closed form, memory, and the timeline beside them."""

from functools import lru_cache
from typing import NamedTuple

from puzzle.inputs.cluster import Cluster, Constants
from puzzle.inputs.layout import Layout
from puzzle.inputs.model import Llama
from puzzle.inputs.workload import Workload
from puzzle.plan.plans import Plan
from puzzle.simulate.cost import (
    Prediction,
    generation_time,
    inference_time,
    switch_time,
    training_time,
)
from puzzle.simulate.memory import Memory, memory
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


def _training(plan: Plan, c: Constants) -> float:
    if how_trained(plan) == PLAYED:
        work = plan.work
        return fused_time(
            plan.actor,
            plan.critic,
            plan.choice.training,
            work.batch,
            work.micro_batch,
            work.length,
            c,
        )
    return training_time(
        plan.actor,
        plan.critic,
        plan.choice.training,
        plan.work,
        c,
        merged=plan.choice.schedule == "merged",
        steps_critic=not plan.released,
    )


@lru_cache(maxsize=4096)
def fused_time(
    actor: Llama, critic: Llama, layout: Layout, batch: int, micro: int, length: int, c: Constants
) -> float:
    """Return the fused training stage's time: its pass list played."""
    work = Workload(batch=batch, micro_batch=micro, prompt=1, answer=length - 1)
    return play_training("fused", actor, critic, layout, work, c).seconds


def predict(plan: Plan, cluster: Cluster) -> Predicted:
    """Return a plan's stage times and memory on a cluster."""
    c, choice = cluster.constants, plan.choice
    switch, beside = 0.0, 0.0
    if plan.switch is not None:
        most = 0 if plan.released else max(1, *plan.switch.messages)
        fullest = max(plan.switch.received)
        if not plan.released:  # links carry both ways at once
            fullest = max(fullest, *plan.switch.sent)
        switch = switch_time(c, fullest, most)
        beside = float(plan.switch.beside)
    times = Prediction(
        generation=generation_time(plan.actor, choice.generation, plan.work, c),
        switch=switch,
        inference=inference_time(
            plan.actor,
            plan.critic,
            choice.training,
            plan.work,
            c,
            merged=choice.inference == "merged",
        ),
        training=_training(plan, c),
    )
    used = memory(
        plan.actor,
        plan.critic,
        choice.training,
        choice.generation,
        plan.work,
        beside,
        fused=choice.schedule == "fused",
    )
    return Predicted(times, used)
