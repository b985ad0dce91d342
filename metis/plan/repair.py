"""A running plan on what is left of its nodes: the same stages, the layers split anew.

Every stage keeps its devices that are left, and its tensor degree where that divides them; a stage
without any is dropped. The split of the layers is the one whose slowest stage is the fastest.
"""

from collections.abc import Sequence
from functools import cache
from itertools import accumulate, pairwise
from typing import NamedTuple

from metis.plan.balance import min_max_split
from metis.plan.cells import Found, costed
from metis.plan.change import Change
from metis.plan.lines import ranks_of
from metis.plan.memory import demand_and_capacity, in_flight
from metis.plan.problem import Problem
from metis.plan.stages import StageModel, StageOption

FACTOR = 2
"""By which the number of micro-batches differs at first."""


class Left(NamedTuple):
    """What is left of a plan."""

    machines: tuple[int, ...]
    """In rank order."""
    sizes: tuple[int, ...]
    """Devices of each stage that has any."""
    degrees: tuple[int, ...]
    """Tensor degree of each of them."""


def left_of(change: Change) -> Left:
    """Return the machines and stages that are left of a plan."""
    ends = list(accumulate(node.devices for node in change.before.nodes))
    ranks = zip([0, *ends], ends, change.machines, strict=False)
    alive = [(first, end) for first, end, machine in ranks if machine is not None]
    stages = [
        (sum(_shared(stage.first_rank, stage.devices, *node) for node in alive), stage.tp)
        for stage in change.before.stages
    ]
    return Left(
        tuple(machine for machine in change.machines if machine is not None),
        tuple(size for size, _ in stages if size),
        tuple(tp for size, tp in stages if size),
    )


def _shared(first_rank: int, devices: int, first: int, end: int) -> int:
    """Return how many of a stage's ranks are among those of a node."""
    return max(min(first_rank + devices, end) - max(first_rank, first), 0)


def repaired(problem: Problem, change: Change) -> Found | None:
    """Return the cheapest plan of what is left, with about as many micro-batches as before.

    Where none of these fits, with any number of them; None where none does.
    """
    left = left_of(change)
    if not left.sizes or len(left.sizes) > problem.model.layers:
        return None
    every = problem.cluster.machines()
    model = StageModel(problem, ranks_of([every[number] for number in left.machines]))
    about, others = list[int](), list[int]()
    for batches in problem.batches():
        ratio = batches / change.before.batches
        (about if 1 / FACTOR <= ratio <= FACTOR else others).append(batches)
    for some in (about, others):
        found = [f for f in (_with(model, left, batches) for batches in some) if f]
        if found:
            return min(found, key=lambda f: f.cost_ms)
    return None


def _with(model: StageModel, left: Left, batches: int) -> Found | None:
    """Return the plan with a number of micro-batches; None where it is not valid or too large."""
    first, stages = 0, list[Sequence[StageOption]]()
    for size, degree in zip(left.sizes, left.degrees, strict=True):
        stages.append(_options(model, first, size, degree, batches))
        first += size
    if not all(stages):
        return None

    @cache
    def quickest(s: int, first: int, end: int) -> StageOption | None:
        """Return the option that does least again of those that fit."""
        flights = in_flight(s, len(stages), batches)
        for option in stages[s]:
            demand, capacity = demand_and_capacity(option, first, end, flights)
            if demand <= capacity:
                return option
        return None

    def time(s: int, first: int, end: int) -> float:
        return float((quickest(s, first, end) or stages[s][-1]).time[first, end])

    def fits(s: int, first: int, end: int) -> bool:
        return quickest(s, first, end) is not None

    split = min_max_split(model.problem.model.layers, len(stages), time, fits)
    if split is None:
        return None
    options = [quickest(s, first, end) for s, (first, end) in enumerate(pairwise(split))]
    chosen = [option for option in options if option is not None]
    return costed(model, batches, chosen, split, left.machines)


def _options(
    model: StageModel, first: int, size: int, degree: int, batches: int
) -> Sequence[StageOption]:
    """Return a stage's options that differ in recomputation, at the degree nearest to its own."""
    profiles = model.problem.profiles
    known = {tp for device in profiles.device_types() for tp in profiles.degrees(device)}
    for tp in sorted(known, key=lambda tp: (abs(tp - degree), tp)):
        kinds = model.problem.savers.recompute if size % tp == 0 else ()
        found = [model.option(first, size, size // tp, tp, batches, kind) for kind in kinds]
        valid = [option for option in found if option is not None]
        if valid:
            return valid
    return ()
