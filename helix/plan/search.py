"""Our own search of a placement: annealing chains, then the simulator in the loop.

The maximum flow is a poor proxy of the service's throughput (the proven optimum on the paper's
single cluster simulates worse than its published placement), so there are three objectives:

- `flow`: the paper's, by annealing; ends as soon as a chain attains the bound;
- `latency-flow`: the decode throughput under load in closed form (`helix.plan.estimate`);
- `simulated`: what the chains end with by that estimate is simulated, the estimate corrected by
  what comes of it, and so on, round by round (`helix.plan.search_loop`).

The outcome follows from the seed and the budget of evaluations and simulations alone, however many
threads work on it; a time limit only cuts it short.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

import numpy as np

from helix.plan.clock import Clock
from helix.plan.search_chains import Budget, Ended, Intervals, Step, first_chains
from helix.plan.search_loop import Loop
from helix.plan.search_problem import SearchProblem

Objective = Literal["simulated", "latency-flow", "flow"]

ALIKE = 1e-9


class Found(NamedTuple):
    """The best placement of a search, its value in the objective's unit, and the work done."""

    intervals: Intervals
    value: float
    evaluations: int
    simulations: int
    seconds: float
    steps: tuple[Step, ...]
    ranked: tuple[Intervals, ...] = ()
    """The best few, best first: by simulation as far as there was time for any."""


def search(
    problem: SearchProblem,
    starts: Sequence[Intervals],
    objective: Objective,
    budget: Budget,
    seed: int,
    bound: float,
    simulate: Callable[[Intervals, int], float],
    advance: Callable[[int], None],
    clock: Clock,
    partial: bool = False,
) -> Found:
    """Return the best placement found.

    `starts` are placements to begin from, `bound` is one on the flow; `simulate` returns the decode
    throughput of a placement for a numbered draw of requests, NaN where it was cut short, and may
    be called from several threads; `advance` is told of each chain and simulation as it ends. The
    value of `simulated` is a mean over draws, its steps are of the first draw; where time did not
    suffice for one simulation it is the estimate. Ctrl-C that the clock has heard ends the search
    with the best so far.
    """
    loaded = objective != "flow"
    goal = np.inf if loaded else bound * (1 - ALIKE)
    pool, steps = list[Ended](), list[Step]()
    with kept(clock, pool):
        for ended in first_chains(
            problem, starts, budget, seed, loaded=loaded, partial=partial, goal=goal, clock=clock,
            advance=advance,
        ):  # fmt: skip
            pool.append(ended)
            if not steps or ended.value > steps[-1].value:
                steps.append(Step(clock.seconds(), ended.value, 0))
    pool.sort(key=lambda one: -one.value)
    evaluations = sum(one.evaluations for one in pool)
    ranked = tuple(dict.fromkeys(one.intervals for one in pool))
    best = pool[0]
    if objective != "simulated":
        return Found(
            best.intervals, best.value, evaluations, 0, clock.seconds(), tuple(steps), ranked
        )
    loop = Loop(problem, starts, simulate, advance, budget, clock, seed, partial=partial)
    with kept(clock, pool):
        loop.simulate([one.intervals for one in pool])
        loop.run()
    runs, value = best.intervals, best.value
    with kept(clock, pool):
        runs, value = loop.winner() or (runs, value)
    return Found(
        runs, value, evaluations + loop.evaluations, loop.simulations, clock.seconds(),
        tuple(loop.steps), tuple(dict.fromkeys((runs, *loop.ranked(), *ranked))),
    )  # fmt: skip


@contextmanager
def kept(clock: Clock, found: Sequence[object]) -> Generator[None]:
    """Go on after a Ctrl-C that the clock has heard, if something was found by then."""
    try:
        yield
    except KeyboardInterrupt:
        if not (clock.interrupted and found):
            raise
