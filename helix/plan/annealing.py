"""Simulated annealing over placements with an incremental maximum flow, compiled.

One call is one chain: deterministic for its random numbers and number of evaluations. It releases
the interpreter lock, so chains run side by side in threads.
"""

import numpy as np

from helix.plan.compiled import compiled
from helix.plan.estimate import decode_rate
from helix.plan.search_flow import FIRST, SOURCE, fill_up, take_out
from helix.plan.search_moves import move
from helix.plan.search_problem import Floats, Ints, SearchProblem

HOT, COLD = 0.05, 0.0005  # first and last temperature, as shares of the best value
COVERAGE = 0.3  # weight of layers that are served worse than the target
AMBITION = 1.1  # the target's lead over the best flow found
REFRESH = 20_000  # evaluations after which flows are made anew, for rounding


@compiled
def value_of(
    problem: SearchProblem, starts: Ints, ends: Ints, flow: Floats, through: Floats, loaded: bool
) -> float:
    """Return the estimated decode rate (`loaded`) or the flow's value, in tokens/s."""
    if not loaded:
        return through[SOURCE]
    return decode_rate(
        starts, ends, problem.layers, flow, through, problem.kv_tokens, problem.base,
        problem.per_decode, problem.per_prompt, problem.latency, problem.occupied, problem.mix,
    )  # fmt: skip


@compiled
def shortfall(problem: SearchProblem, starts: Ints, ends: Ints, target: float) -> float:
    """Return by how much the layers' machines miss the target flow on average, tokens/s.

    It leads the search while no flow passes yet, and past plateaus of equal flow later.
    """
    cover = np.zeros(problem.layers)
    for i in range(len(starts)):
        cover[starts[i] : ends[i]] += problem.rates[i, ends[i] - starts[i]]
    return np.maximum(target - cover, 0.0).mean()


@compiled
def anneal(
    problem: SearchProblem, starts: Ints, ends: Ints, partial: bool, loaded: bool,
    rng: np.random.Generator,
    evaluations: int, goal: float,
) -> tuple[Ints, Ints, float, int]:  # fmt: skip
    """Return the best placement of a chain, its value and the evaluations made.

    `goal` ends the chain early: a proven bound on the value.
    """
    places = len(starts) + FIRST
    flow, through = np.zeros((places, places)), np.zeros(places)
    best_flow = fill_up(
        starts, ends, problem.layers, partial, problem.rates, problem.link_rates, flow, through
    )
    value = value_of(problem, starts, ends, flow, through, loaded)
    best, best_starts, best_ends = value, starts.copy(), ends.copy()
    score = -np.inf
    cooling = (COLD / HOT) ** (1 / max(evaluations, 1))
    heat = HOT
    for done in range(evaluations):
        if best >= goal:
            return best_starts, best_ends, best, done
        heat *= cooling
        new_starts, new_ends = starts.copy(), ends.copy()
        if not move(new_starts, new_ends, problem.most, problem.layers, rng):
            continue
        new_flow, new_through = flow.copy(), through.copy()
        if done % REFRESH == 0:
            new_flow[:] = 0.0
            new_through[:] = 0.0
        for i in range(len(starts)):
            if new_starts[i] != starts[i] or new_ends[i] != ends[i]:
                take_out(new_flow, new_through, i + FIRST)
        flow_value = fill_up(
            new_starts, new_ends, problem.layers, partial, problem.rates, problem.link_rates,
            new_flow, new_through,
        )  # fmt: skip
        new_value = value_of(problem, new_starts, new_ends, new_flow, new_through, loaded)
        best_flow = max(best_flow, flow_value)
        unit = max(best, 1.0) / max(best_flow, 1.0) if loaded else 1.0
        target = AMBITION * max(best_flow, 1.0)
        new_score = new_value - COVERAGE * unit * shortfall(problem, new_starts, new_ends, target)
        room = heat * max(best, 1.0)
        if new_score >= score or rng.random() < np.exp((new_score - score) / room):
            starts, ends, flow, through, score = (
                new_starts,
                new_ends,
                new_flow,
                new_through,
                new_score,
            )
            if new_value > best:
                best, best_starts, best_ends = new_value, starts.copy(), ends.copy()
    return best_starts, best_ends, best, evaluations
