"""Annealing chains of the search, side by side in threads, and what they may spend."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from helix.plan.annealing import FOR_FLOW, UNDER_LOAD, Heat, anneal, value_of
from helix.plan.placement import UNUSED
from helix.plan.search_flow import FIRST, fill_up
from helix.plan.search_problem import Floats, Ints, SearchProblem, scratch

Intervals = tuple[tuple[int, int], ...]


class Budget(NamedTuple):
    """What a search may spend."""

    chains: int
    evaluations: int
    simulations: int
    time_limit_s: float
    workers: int


class Step(NamedTuple):
    """A new best value, when it was found and by how many simulations."""

    seconds: float
    value: float
    simulations: int


class Clock(NamedTuple):
    """When a search began (`time.monotonic`) and how many seconds it may take."""

    begin: float
    limit: float

    def seconds(self) -> float:
        """Return the seconds since then."""
        return time.monotonic() - self.begin

    def over(self) -> bool:
        """Say whether time is up."""
        return self.seconds() >= self.limit


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
    problem: SearchProblem, chain: Chain, *, loaded: bool, partial: bool, goal: float = np.inf
) -> Ended:
    """Run one chain; `loaded` maximises the decode throughput under load, else the flow."""
    runs = np.array(chain.start, np.int64)
    first, last, value, done = anneal(
        problem, runs[:, 0].copy(), runs[:, 1].copy(), partial, loaded,
        np.random.default_rng(chain.seed), chain.evaluations, goal, chain.heat,
        scratch(len(runs), problem.layers),
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
        return run_chain(problem, chain, loaded=loaded, partial=partial, goal=goal)

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
    starts, ends = np.array(runs, np.int64).T.copy()
    places = len(starts) + FIRST
    flow, through = np.zeros((places, places)), np.zeros(places)
    room = scratch(len(starts), problem.layers)
    fill_up(
        starts, ends, problem.layers, partial, problem.rates, problem.link_rates, flow, through,
        room,
    )  # fmt: skip
    return value_of(problem, starts, ends, flow, through, True, room), room.facts


def intervals(starts: Ints, ends: Ints) -> Intervals:
    """Return runs of layers as the rest of the package has them."""
    pairs = zip(starts.tolist(), ends.tolist(), strict=True)
    return tuple((first, last) if last > first else UNUSED for first, last in pairs)
