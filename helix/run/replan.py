"""Another plan for the machines that are left: the same layers with another flow, or other layers.

As long as the machines that are left hold all layers, only the flow is computed anew, so that no
weights move. Otherwise the layers are placed anew on them, by the search with a small budget.
"""

import logging
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from common.errors import InputError
from helix.plan.baselines import petals
from helix.plan.clock import Clock
from helix.plan.placement import UNUSED, wired
from helix.plan.plans import Plan, Service
from helix.plan.question import Question
from helix.plan.search import search
from helix.plan.search_chains import Budget
from helix.plan.search_problem import search_problem
from helix.plan.throughput import throughput

log = logging.getLogger("helix")

CHAINS, EVALUATIONS, LIMIT_S = 2, 20_000, 20.0


class Replanned(NamedTuple):
    """Services for the machines that are left; empty if they cannot hold the model."""

    services: tuple[Service, ...]
    moved: bool
    """Machines hold other layers than in the plan."""


def without(question: Question, plan: Plan, gone: Iterable[int], seed: int) -> Replanned:
    """Return what serves best when some machines are gone."""
    absent = set(gone)
    left = [one for one in (_less(question, one, absent) for one in plan.services) if one]
    if left:
        return Replanned(tuple(left), moved=False)
    fresh = _anew(question, [i for i in range(len(plan.machines)) if i not in absent], seed)
    return Replanned((fresh,) if fresh else (), moved=fresh is not None)


def prepare(question: Question, seed: int) -> None:
    """Compile the search while all is well, so that a loss is mended within seconds."""
    _anew(question, list(range(len(question.cluster.nodes))), seed, evaluations=10)


def _less(question: Question, one: Service, absent: set[int]) -> Service | None:
    """Return a service without the machines that are gone; None if a layer is on no other."""
    if not absent & {
        m for m, run in zip(one.machines, one.intervals, strict=True) if run != UNUSED
    }:
        return one
    if one.flow <= 0:
        return None  # a pipeline whose machines hold more than their profile says
    part = one.part(question.cluster)
    runs = tuple(
        UNUSED if machine in absent else run
        for machine, run in zip(one.machines, one.intervals, strict=True)
    )
    placement = wired(one.layers, runs, part.links, question.search.partial)
    alone = question._replace(
        cluster=part, speed=throughput(question.model, question.profiles, part.kind_counts())
    )
    try:
        made = alone.alone(placement, one.name)
    except InputError:
        return None
    return msgspec.structs.replace(made, machines=one.machines, kinds=one.kinds)


def _anew(
    question: Question, alive: list[int], seed: int, evaluations: int = EVALUATIONS
) -> Service | None:
    """Return a new placement on the machines that are left; None if they cannot hold the model."""
    if not alive:
        return None
    part = question.cluster.part(alive)
    if sum(question.profiles[n.kind].max_layers for n in part.nodes) < question.model.layers:
        return None
    speed = throughput(question.model, question.profiles, part.kind_counts())
    own = question._replace(cluster=part, speed=speed)
    problem = search_problem(part, question.model, question.profiles, speed)
    start = petals(part, question.model, speed, seed).intervals
    try:
        with Clock(LIMIT_S) as clock:
            found = search(
                problem,
                [start],
                "latency-flow",
                Budget(CHAINS, evaluations, 0, 1),
                seed,
                own.bound(),
                lambda *_: 0.0,
                lambda _: None,
                clock,
                question.search.partial,
            )
        placement = wired(
            question.model.layers, found.intervals, part.links, question.search.partial
        )
        made = own.alone(placement)
    except InputError as error:
        log.warning("no placement on the machines that are left: %s", error)
        return None
    return msgspec.structs.replace(made, machines=tuple(alive))
