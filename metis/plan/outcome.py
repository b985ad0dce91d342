"""What a method answers, and what to say where it has no plan."""

from typing import NamedTuple

from metis.inputs.experiment import Experiment
from metis.plan.plans import Plan
from metis.plan.problem import Problem


class Figure(NamedTuple):
    """One number a method reports: name, value, unit, samples behind it."""

    name: str
    value: float
    unit: str
    samples: tuple[float, ...] = ()


class Outcome(NamedTuple):
    """A method's answer. `plan` is None when nothing fits."""

    plan: Plan | None
    figures: tuple[Figure, ...]
    summary: str
    """One or two sentences for the terminal."""
    original_log: str = ""
    why_none: str = ""
    interrupted: bool = False
    """Ended by Ctrl-C: the plan is the best until then."""


def cost_of(plan: Plan) -> Figure:
    """Return a plan's predicted time as a figure."""
    return Figure("plan.cost", plan.cost_ms, "ms")


def bound_of(name: str, bound_ms: float) -> tuple[Figure, ...]:
    """Return a lower bound as a figure; none where the time did not suffice for one."""
    return (Figure(name, bound_ms, "ms"),) if bound_ms > 0 else ()


def ran_out(experiment: Experiment) -> str:
    """Say that there was too little time to find a plan."""
    return (
        f"no plan was found within search.time_limit_s = {experiment.search.time_limit_s:g};"
        " raise it"
    )


def nothing_fits(problem: Problem) -> str:
    """Say that no plan fits in memory, and what helps."""
    memory = sum(node.memory_mb * node.devices for node in problem.cluster.machines())
    return (
        f"no plan fits: {problem.model.layers} layers with a global batch of"
        f" {problem.model.global_batch} on {problem.devices} devices with {memory / 1024:.0f} GB in"
        " all; add devices or memory, raise search.max_tp or profile larger tensor degrees, or"
        " make the model smaller"
    )
