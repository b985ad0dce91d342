"""The methods by name, and one call that places by any of them."""

import time
from collections.abc import Callable
from typing import NamedTuple

from beta.plan import baselines, integer
from beta.plan.beam import replicated_by_beam
from beta.plan.best import Chosen, best
from beta.plan.evolve import evolve, evolve_replicas
from beta.plan.improve import improve
from beta.plan.placement import Timetable, packed
from beta.plan.problem import Problem, Scored
from beta.plan.replan import replan
from beta.plan.search import search, search_separated
from common.errors import InputError


class Method(NamedTuple):
    """What a name stands for; names end with as many numbers as `numbers` names."""

    about: str
    solve: Callable[..., Scored | Chosen | Timetable]
    numbers: tuple[str, ...] = ()
    limited: bool = False
    """Whether it takes a time limit in seconds as its last argument."""


METHODS: dict[str, Method] = {
    "best": Method("the best of all methods below that end in one placement", best, limited=True),
    "mp-search-sep": Method(
        "AlpaServe: also gives models of different latency devices of their own", search_separated
    ),
    "mp-improve": Method(
        "mp-search-sep, then local search within the time limit", improve, limited=True
    ),
    "mp-replan": Method(
        "mp-search anew every N seconds by the last N, swaps paid for", replan, ("SECONDS",)
    ),
    "mp-evo": Method("evolutionary search within the time limit", evolve, limited=True),
    "sr-evo": Method("SR by evolutionary search", evolve_replicas, limited=True),
    "mp-search": Method("AlpaServe without separation", search),
    "mp-greedy": Method("pipelines of N devices, filled greedily", baselines.fixed_groups, ("N",)),
    "mp-round-robin": Method("pipelines of 4, models dealt out in turn", baselines.round_robin),
    "mp-equal": Method(
        "a group of pp x op devices for each model", baselines.one_group_each, ("PP", "OP")
    ),
    "mp-ilp": Method(
        "pipelines and replicas by an integer program", integer.piped_by_program, limited=True
    ),
    "sr-greedy": Method(
        "SR: replicas on single devices, placed greedily", baselines.selective_replication
    ),
    "sr-search": Method("SR by beam search", replicated_by_beam),
    "sr-uniform": Method("replicas dealt out in turn", baselines.uniform),
    "sr-ilp": Method("replicas by an integer program", integer.replicated_by_program, limited=True),
    "sr-replace": Method(
        "Clockwork++: sr-greedy anew for every N seconds, swaps free",
        baselines.clockwork,
        ("SECONDS",),
    ),
}


class Solved(NamedTuple):
    """A placement, or several that take turns, with what finding it took."""

    timetable: Timetable
    score: float | None
    train_attainment: float | None
    search_s: float
    simulations: int
    walked: int
    """Requests simulated."""
    by: str = ""
    """The method whose placement is the best of all, where all were asked."""
    proved: bool = False
    """Whether no placement is better."""
    left_out: tuple[str, ...] = ()
    """Methods that were not asked, as they would take too long."""


def names() -> str:
    """Return all methods as a user writes them."""
    return ", ".join("-".join((name, *method.numbers)) for name, method in METHODS.items())


def parse(name: str) -> tuple[Method, tuple[int, ...]]:
    """Return the method of a name and its numbers."""
    parts, numbers = name.split("-"), list[int]()
    while parts and "-".join(parts) not in METHODS and parts[-1].isdigit():
        numbers.insert(0, int(parts.pop()))
    method = METHODS.get("-".join(parts))
    if method is None or len(numbers) != len(method.numbers) or not all(numbers):
        raise InputError(f"no method {name!r}; expected one of {names()}")
    return method, tuple(numbers)


def solve(problem: Problem, name: str, time_limit_s: float = integer.TIME_LIMIT_S) -> Solved:
    """Place by a method."""
    method, numbers = parse(name)
    started = time.perf_counter()
    limit = (time_limit_s,) if method.limited else ()
    found = method.solve(problem, *numbers, *limit)
    seconds = time.perf_counter() - started
    if isinstance(found, Timetable):
        return Solved(found, None, None, seconds, 0, 0)
    by, proved, left_out = "", False, ()
    if isinstance(found, Chosen):
        found, by, _, proved, left_out = found
    if packed(found.placement, problem.cluster) is None and not problem.switches.dead_leftovers:
        per_node = problem.cluster.devices_per_node
        raise InputError(
            f"{name}: its groups do not fit into nodes of {per_node} devices so that none"
            " straddles two; take method best, or change cluster.devices_per_node"
        )
    return Solved(
        Timetable((0.0,), (found.placement,)),
        found.score,
        found.goodput,
        seconds,
        found.simulations,
        found.walked,
        by,
        proved,
        left_out,
    )
