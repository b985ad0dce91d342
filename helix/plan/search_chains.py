"""Annealing chains of the search, side by side in threads, and what they may spend."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from helix.plan.annealing import FOR_FLOW, UNDER_LOAD, Heat, anneal, value_of
from helix.plan.clock import NEVER, Clock
from helix.plan.placement import UNUSED
from helix.plan.search_flow import FIRST, fill_up
from helix.plan.search_moves import OUT
from helix.plan.search_problem import Floats, Ints, SearchProblem, scratch

Intervals = tuple[tuple[int, int], ...]


class Budget(NamedTuple):
    """What a search may spend."""

    chains: int
    evaluations: int
    simulations: int
    workers: int


class Step(NamedTuple):
    """A new best value, when it was found and by how many simulations."""

    seconds: float
    value: float
    simulations: int


class Chain(NamedTuple):
    """A chain to run: from where, how hot, how long, by which random numbers."""

    start: Intervals
    heat: Heat
    evaluations: int
    seed: tuple[int, ...]


class Ended(NamedTuple):
    """A chain's best placement, its value by the chain's objective, evaluations made."""

    intervals: Intervals
    value: float
    evaluations: int


def run_chain(
    problem: SearchProblem, chain: Chain, *, loaded: bool, partial: bool, goal: float = np.inf,
    stop: Ints = NEVER,
) -> Ended:  # fmt: skip
    """Run one chain; `loaded` maximises the decode throughput under load, else the flow."""
    starts, ends = arrays(chain.start)
    first, last, value, done = anneal(
        problem, starts, ends, partial, loaded, np.random.default_rng(chain.seed),
        chain.evaluations, goal, chain.heat, scratch(len(starts), problem.layers), stop,
    )  # fmt: skip
    return Ended(intervals(first, last), value, done)


def first_chains(
    problem: SearchProblem, starts: Sequence[Intervals], budget: Budget, seed: int, *,
    loaded: bool, partial: bool, goal: float, clock: Clock, advance: Callable[[int], None],
) -> Iterator[Ended]:  # fmt: skip
    """Yield what the chains from the given starts end with, until time is up or one attains `goal`.

    All that run side by side end before the next begin.
    """
    heat = UNDER_LOAD if loaded else FOR_FLOW
    chains = [
        Chain(starts[number % len(starts)], heat, budget.evaluations, (seed, number))
        for number in range(budget.chains)
    ]

    def run(chain: Chain) -> Ended:
        return run_chain(problem, chain, loaded=loaded, partial=partial, goal=goal, stop=clock.flag)

    best = -np.inf
    with ThreadPoolExecutor(budget.workers) as threads:
        for first in range(0, len(chains), budget.workers):
            for ended in threads.map(run, chains[first : first + budget.workers]):
                best = max(best, ended.value)
                advance(1)
                yield ended
            if clock.over() or best >= goal:
                return


def estimate_of(problem: SearchProblem, runs: Intervals, partial: bool) -> float:
    """Return the estimated decode throughput of a placement, tokens/s."""
    return facts_of(problem, runs, partial)[0]


def facts_of(problem: SearchProblem, runs: Intervals, partial: bool) -> tuple[float, Floats]:
    """Return the estimated decode throughput, tokens/s, and the facts that it is corrected by."""
    starts, ends = arrays(runs)
    places = len(starts) + FIRST
    flow, through = np.zeros((places, places)), np.zeros(places)
    room = scratch(len(starts), problem.layers)
    fill_up(
        starts, ends, problem.layers, partial, problem.rates, problem.link_rates, flow, through,
        room,
    )  # fmt: skip
    return value_of(problem, starts, ends, flow, through, True, room), room.facts


def arrays(runs: Intervals) -> tuple[Ints, Ints]:
    """Return runs of layers as the kernels have them; `OUT` for what is not used."""
    starts, ends = np.array([run if run != UNUSED else (OUT, OUT) for run in runs], np.int64).T
    return starts.copy(), ends.copy()


def intervals(starts: Ints, ends: Ints) -> Intervals:
    """Return runs of layers as the rest of the package has them."""
    pairs = zip(starts.tolist(), ends.tolist(), strict=True)
    return tuple((first, last) if last > first else UNUSED for first, last in pairs)
