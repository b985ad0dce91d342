"""What a plan's step takes: stage times in closed form, memory, and the timeline beside them."""

from typing import NamedTuple

from puzzle.inputs.cluster import Cluster, Constants
from puzzle.plan.plans import Plan
from puzzle.simulate.cost import (
    Prediction,
    generation_time,
    inference_time,
    switch_time,
    training_time,
)
from puzzle.simulate.memory import Memory, memory
from puzzle.simulate.timeline import training_timeline


class Predicted(NamedTuple):
    """Stage times in seconds, and a device's memory in bytes."""

    times: Prediction
    memory: Memory


def _training(plan: Plan, c: Constants) -> float:
    """Return the training stage's time; the fused schedule has no closed form."""
    if plan.choice.schedule == "fused":
        return training_timeline(plan, c).seconds
    return training_time(
        plan.actor,
        plan.critic,
        plan.choice.training,
        plan.work,
        c,
        merged=plan.choice.schedule == "merged",
        steps_critic=not plan.released,
    )


def predict(plan: Plan, cluster: Cluster) -> Predicted:
    """Return a plan's stage times and memory on a cluster."""
    c, choice = cluster.constants, plan.choice
    switch, beside = 0.0, 0.0
    if plan.switch is not None:
        most = 0 if plan.released else max(1, *plan.switch.messages)
        switch = switch_time(c, max(plan.switch.received), most)
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
