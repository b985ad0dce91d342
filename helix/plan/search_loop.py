"""The simulator in the loop of the search: it judges, and teaches the estimate that proposes.

Round by round: the estimate is corrected by all that was simulated so far
(`helix.plan.learning`); four chains maximise it, from the two best placements, from one of the
better ones and from a start; what they end with is simulated, and so are neighbours of the best.

The best for one draw of requests is partly the luckiest, so in the end the best few are simulated
with other draws too, and the best on average is taken.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import numpy as np

from helix.plan.annealing import COOL, UNDER_LOAD, WARM
from helix.plan.clock import Clock
from helix.plan.learning import Lessons
from helix.plan.search_chains import (
    Budget,
    Chain,
    Ended,
    Intervals,
    Step,
    arrays,
    estimate_of,
    facts_of,
    intervals,
    run_chain,
)
from helix.plan.search_moves import move
from helix.plan.search_problem import SearchProblem

BATCH = 4  # placements simulated side by side; fixed, so that threads do not change the outcome
TRIES = 100  # neighbours drawn for one that is simulated
NOISE = 0.05  # so that the estimate's favourites are not all there is
BETTER = 20  # placements that count as the better ones
SHORT = 10  # a round's chain from a good placement makes the first chains' evaluations / 10
LONG = 4  # and one from a start, so many times as many
FINALISTS = 20  # one of so many simulations is of a placement that gets to the end
DRAWS = 3  # of requests, that these are judged by
IDLE = 3  # rounds without anything new, after which there is nothing left to find


class Loop:
    """What was simulated, and the best of it."""

    def __init__(
        self, problem: SearchProblem, starts: Sequence[Intervals],
        simulate: Callable[[Intervals, int], float], advance: Callable[[int], None], budget: Budget,
        clock: Clock, seed: int, *, partial: bool,
    ) -> None:  # fmt: skip
        self._problem, self._taught, self._starts = problem, problem, starts
        self._simulate, self._advance = simulate, advance
        self._budget, self._clock, self._partial, self._seed = budget, clock, partial, seed
        self._rng = np.random.default_rng(seed)
        self._lessons = Lessons()
        self._seen = dict[Intervals, float]()
        self._rounds = 0
        self._finalists = budget.simulations // FINALISTS
        self._room = budget.simulations - self._finalists * (DRAWS - 1)
        self.evaluations, self.simulations = 0, 0
        self.steps = list[Step]()

    def best(self) -> Intervals:
        """Return the best placement for the first draw of requests."""
        return max(self._seen, key=lambda runs: self._seen[runs])

    def ranked(self) -> list[Intervals]:
        """Return all that was simulated, by the first draw, the best first."""
        return sorted(self._seen, key=lambda runs: -self._seen[runs])

    def winner(self) -> tuple[Intervals, float] | None:
        """Return the best of the best few by the mean over all draws, and that mean, tokens/s.

        Where time is up by the first draw alone; None where nothing was simulated.
        """
        finalists = self.ranked()[: max(self._finalists, 1)]
        if not finalists:
            return None
        means = [self._seen[runs] for runs in finalists]  # sums until all draws are in
        if self._finalists and not self._clock.over():
            with ThreadPoolExecutor(self._budget.workers) as threads:
                for draw in range(1, DRAWS):
                    values = threads.map(self._draw, finalists, repeat(draw))
                    means = [one + new for one, new in zip(means, values, strict=True)]
            means = [total / DRAWS for total in means]
            self.simulations += len(finalists) * (DRAWS - 1)
        if not np.isfinite(means).all():  # cut short
            return finalists[0], self._seen[finalists[0]]
        best = max(range(len(finalists)), key=lambda i: means[i])
        return finalists[best], means[best]

    def _draw(self, runs: Intervals, draw: int) -> float:
        value = self._simulate(runs, draw)
        self._advance(1)
        return value

    def simulate(self, placements: Sequence[Intervals]) -> None:
        """Simulate those that were not yet, in order, as far as budget and time go."""
        room = max(self._room - self.simulations, 0 if self._seen else 1)
        todo = [one for one in dict.fromkeys(placements) if one not in self._seen][:room]
        with ThreadPoolExecutor(self._budget.workers) as threads:
            for first in range(0, len(todo), BATCH):
                if self._clock.over():
                    return
                batch = todo[first : first + BATCH]
                values = threads.map(self._draw, batch, repeat(0))
                for runs, value in zip(batch, values, strict=True):
                    if np.isfinite(value):  # else cut short
                        self._take(runs, value)

    def _take(self, runs: Intervals, value: float) -> None:
        self.simulations += 1
        if not self.steps or value > self.steps[-1].value:
            self.steps.append(Step(self._clock.seconds(), value, self.simulations))
        self._seen[runs] = value
        estimate, facts = facts_of(self._problem, runs, self._partial)
        self._lessons.learn(facts, estimate, value)

    def run(self) -> None:
        """Go on until budget or time is spent or nothing new is found."""
        idle = 0
        while self._going(idle):
            before = self.simulations
            self._taught = self._problem._replace(learnt=self._lessons.weights())
            self.simulate(self._chained())
            if self._clock.over():
                return
            self.simulate(list(self._neighbours(self.best(), BATCH)))
            self._rounds += 1
            idle = idle + 1 if self.simulations == before else 0

    def _going(self, idle: int) -> bool:
        spent = self.simulations >= self._room or self._clock.over()
        return bool(self._seen) and not spent and idle < IDLE

    def _chained(self) -> list[Intervals]:
        ranked = self.ranked()
        short = max(self._budget.evaluations // SHORT, 1)
        some = ranked[int(self._rng.integers(min(BETTER, len(ranked))))]
        start = self._starts[self._rounds % len(self._starts)]
        plan = (
            (ranked[0], COOL, short),
            (ranked[min(1, len(ranked) - 1)], COOL, short),
            (some, WARM, short),
            (start, UNDER_LOAD, LONG * short),
        )
        chains = [
            Chain(*one, (self._seed, self._rounds, number)) for number, one in enumerate(plan)
        ]
        with ThreadPoolExecutor(self._budget.workers) as threads:
            # The longest first: it would keep the others waiting at the end.
            ended = list(threads.map(self._run, reversed(chains)))
        self.evaluations += sum(one.evaluations for one in ended)
        return [one.intervals for one in reversed(ended)]

    def _run(self, chain: Chain) -> Ended:
        return run_chain(
            self._taught, chain, loaded=True, partial=self._partial, stop=self._clock.flag
        )

    def _neighbours(self, runs: Intervals, count: int) -> Iterator[Intervals]:
        """Yield unseen neighbours of a placement, of good estimate."""
        new = set[Intervals]()
        for _ in range(count):
            best, highest = None, 0.0
            for _ in range(TRIES):
                one = self._moved(runs)
                if one is None or one in self._seen or one in new:
                    continue
                self.evaluations += 1
                estimate = estimate_of(self._taught, one, self._partial)
                estimate *= self._rng.uniform(1 - NOISE, 1 + NOISE)
                if estimate > highest:
                    best, highest = one, estimate
            if best is not None:
                new.add(best)
                yield best

    def _moved(self, runs: Intervals) -> Intervals | None:
        """Return the placement after one to three moves, None if that is none."""
        starts, ends = arrays(runs)
        for _ in range(int(self._rng.integers(1, 4))):
            if not move(starts, ends, self._problem.most, self._problem.layers, self._rng):
                return None
        return intervals(starts, ends)
