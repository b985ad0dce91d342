"""Our own search of a placement: annealing chains, then the simulator in the loop.

The maximum flow is a poor proxy of the service's throughput (the proven optimum on the paper's
single cluster simulates worse than its published placement), so there are three objectives:

- `flow`: the paper's, by annealing; ends as soon as a chain attains the bound;
- `latency-flow`: the decode throughput under load in closed form (`helix.plan.estimate`);
- `simulated`: the best placements by that estimate are simulated, and the best of these is improved
  by neighbours that the estimate does not rule out, each simulated.

The outcome follows from the seed and the budget of evaluations and simulations alone, however many
threads work on it; a time limit only cuts it short.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import numpy as np

from helix.plan.annealing import anneal, value_of
from helix.plan.placement import UNUSED
from helix.plan.search_flow import FIRST, fill_up
from helix.plan.search_moves import move
from helix.plan.search_problem import Ints, SearchProblem, scratch

Objective = Literal["simulated", "latency-flow", "flow"]
Intervals = tuple[tuple[int, int], ...]

BATCH = 4  # placements simulated side by side; fixed, so that threads do not change the outcome
RULED_OUT = 0.9  # share of the incumbent's estimate that a neighbour has to have
TRIES = 400  # neighbours drawn for one that is simulated
ALIKE = 1e-9


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


class Found(NamedTuple):
    """The best placement of a search, its value in the objective's unit, and the work done."""

    intervals: Intervals
    value: float
    evaluations: int
    simulations: int
    seconds: float
    steps: tuple[Step, ...]


def search(
    problem: SearchProblem,
    starts: Sequence[Intervals],
    objective: Objective,
    budget: Budget,
    seed: int,
    bound: float,
    simulate: Callable[[Intervals], float],
    advance: Callable[[int], None],
    partial: bool = False,
) -> Found:
    """Return the best placement found.

    `starts` are placements to begin from, `bound` is one on the flow; `simulate` returns the decode
    throughput of a placement and may be called from several threads; `advance` is told of each
    chain and simulation as it ends.
    """
    begin = time.monotonic()
    left = _Clock(begin, budget.time_limit_s)
    loaded = objective != "flow"
    goal = np.inf if loaded else bound * (1 - ALIKE)
    pool, evaluations, steps = _chains(
        problem, starts, loaded, budget, seed, goal, advance, partial, left
    )
    best = max(pool, key=lambda item: item[1])
    if objective != "simulated":
        return Found(best[0], best[1], evaluations, 0, left.seconds(), steps)
    ranked = [runs for runs, _ in sorted(pool, key=lambda item: -item[1])]
    loop = _Loop(problem, simulate, advance, budget, left, partial, np.random.default_rng(seed))
    loop.simulate(ranked[: max(1, budget.simulations // 3)])
    while loop.simulations < budget.simulations and not left.over():
        if not loop.simulate(list(loop.neighbours(BATCH))):
            break
    return Found(
        loop.best, loop.value, evaluations + loop.drawn, loop.simulations, left.seconds(),
        tuple(loop.steps),
    )  # fmt: skip


class _Clock(NamedTuple):
    begin: float
    limit: float

    def seconds(self) -> float:
        return time.monotonic() - self.begin

    def over(self) -> bool:
        return self.seconds() >= self.limit


def _chains(
    problem: SearchProblem, starts: Sequence[Intervals], loaded: bool, budget: Budget, seed: int,
    goal: float, advance: Callable[[int], None], partial: bool, left: _Clock,
) -> tuple[list[tuple[Intervals, float]], int, tuple[Step, ...]]:  # fmt: skip
    """Run the annealing chains; return distinct placements, evaluations and better ones in time."""

    def chain(number: int) -> tuple[Intervals, float, int]:
        runs = np.array(starts[number % len(starts)], np.int64)
        rng = np.random.default_rng([seed, number])
        first, last, value, done = anneal(
            problem, runs[:, 0].copy(), runs[:, 1].copy(), partial, loaded, rng,
            budget.evaluations, goal, scratch(len(runs), problem.layers),
        )  # fmt: skip
        return _intervals(first, last), value, done

    found, evaluations, steps = dict[Intervals, float](), 0, list[Step]()
    with ThreadPoolExecutor(budget.workers) as threads:
        for first in range(0, budget.chains, budget.workers):
            group = range(first, min(first + budget.workers, budget.chains))
            for runs, value, done in threads.map(chain, group):
                found.setdefault(runs, value)
                evaluations += done
                if not steps or value > steps[-1].value:
                    steps.append(Step(left.seconds(), value, 0))
                advance(1)
            if left.over() or max(found.values()) >= goal:
                break
    return list(found.items()), evaluations, tuple(steps)


class _Loop:
    """The simulator in the loop: what was simulated, and the best of it."""

    def __init__(
        self, problem: SearchProblem, simulate: Callable[[Intervals], float],
        advance: Callable[[int], None], budget: Budget, left: _Clock, partial: bool,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self._problem, self._simulate, self._advance = problem, simulate, advance
        self._budget, self._left, self._partial, self._rng = budget, left, partial, rng
        self._seen = set[Intervals]()
        self.best: Intervals = ()
        self.value, self._estimate = -np.inf, 0.0
        self.simulations, self.drawn = 0, 0
        self.steps = list[Step]()

    def simulate(self, placements: Sequence[Intervals]) -> bool:
        """Simulate placements in order, keep the best; say whether there was any."""
        room = self._budget.simulations - self.simulations
        todo = list(placements)[: max(room, 1 if not self.simulations else 0)]
        for first in range(0, len(todo), BATCH):
            if self._left.over() and self.simulations:
                break
            batch = todo[first : first + BATCH]
            with ThreadPoolExecutor(self._budget.workers) as threads:
                for runs, value in zip(batch, threads.map(self._simulate, batch), strict=True):
                    self._take(runs, value)
        return bool(todo)

    def _take(self, runs: Intervals, value: float) -> None:
        self.simulations += 1
        self._seen.add(runs)
        self._advance(1)
        if value > self.value:
            self.best, self.value = runs, value
            self._estimate = self._value_of(runs)
            self.steps.append(Step(self._left.seconds(), value, self.simulations))

    def neighbours(self, count: int) -> Iterator[Intervals]:
        """Yield unseen neighbours of the best placement, of good estimate."""
        new = set[Intervals]()
        for _ in range(count):
            best, best_estimate = None, RULED_OUT * self._estimate
            for _ in range(TRIES // count):
                runs = self._moved()
                if runs is None or runs in self._seen or runs in new:
                    continue
                self.drawn += 1
                # A little noise, so that the estimate's favourites are not all there is.
                estimate = self._value_of(runs) * self._rng.uniform(0.95, 1.05)
                if estimate > best_estimate:
                    best, best_estimate = runs, estimate
            if best is not None:
                new.add(best)
                yield best

    def _moved(self) -> Intervals | None:
        """Return the best placement after one to three moves, None if that is none."""
        starts, ends = np.array(self.best, np.int64).T.copy()
        for _ in range(int(self._rng.integers(1, 4))):
            if not move(starts, ends, self._problem.most, self._problem.layers, self._rng):
                return None
        return _intervals(starts, ends)

    def _value_of(self, runs: Intervals) -> float:
        return estimate_of(self._problem, runs, self._partial)


def estimate_of(problem: SearchProblem, intervals: Intervals, partial: bool) -> float:
    """Return the estimated decode throughput of a placement, tokens/s."""
    starts, ends = np.array(intervals, np.int64).T.copy()
    places = len(starts) + FIRST
    flow, through = np.zeros((places, places)), np.zeros(places)
    room = scratch(len(starts), problem.layers)
    fill_up(
        starts, ends, problem.layers, partial, problem.rates, problem.link_rates, flow, through,
        room,
    )  # fmt: skip
    return value_of(problem, starts, ends, flow, through, True, room)


def _intervals(starts: Ints, ends: Ints) -> Intervals:
    pairs = zip(starts.tolist(), ends.tolist(), strict=True)
    return tuple((first, last) if last > first else UNUSED for first, last in pairs)
