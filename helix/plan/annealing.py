"""Simulated annealing over placements with an incremental maximum flow, compiled.

One call is one chain: deterministic for its random numbers and number of evaluations. It releases
the interpreter lock, so chains run side by side in threads.
"""

from typing import NamedTuple

import numpy as np

from common.kernels import compiled
from helix.plan.bare import bare
from helix.plan.estimate import decode_rate
from helix.plan.search_flow import FIRST, SOURCE, fill_up, take_out
from helix.plan.search_moves import move
from helix.plan.search_problem import Floats, Ints, Scratch, SearchProblem

COLD = 0.0005  # the last temperature, as a share of the best value
AMBITION = 1.1  # the target's lead over the best flow found
REFRESH = 20_000  # evaluations after which the current flow is made anew, for rounding


class Heat(NamedTuple):
    """The first temperature, as a share of the best value, and what misses of the target weigh."""

    hot: float
    coverage: float


FOR_FLOW, UNDER_LOAD = Heat(0.05, 0.3), Heat(0.02, 1.0)
WARM, COOL = Heat(0.01, 1.0), Heat(0.003, 1.0)


@bare
def value_of(
    problem: SearchProblem, starts: Ints, ends: Ints, flow: Floats, through: Floats, loaded: bool,
    scratch: Scratch,
) -> float:  # fmt: skip
    """Return the estimated decode rate (`loaded`) or the flow's value, in tokens/s."""
    if not loaded:
        return through[SOURCE]
    return decode_rate(problem, starts, ends, flow, through, scratch)


@bare
def shortfall(
    problem: SearchProblem, starts: Ints, ends: Ints, target: float, cover: Floats
) -> float:
    """Return by how much the layers' machines miss the target flow on average, tokens/s.

    It leads the search while no flow passes yet, and past plateaus of equal flow later. `cover` is
    memory for one number per layer.
    """
    for layer in range(len(cover)):
        cover[layer] = 0.0
    for i in range(len(starts)):
        for layer in range(starts[i], ends[i]):
            cover[layer] += problem.rates[i, ends[i] - starts[i]]
    missing = 0.0
    for layer in range(len(cover)):
        missing += max(target - cover[layer], 0.0)
    return missing / len(cover)


@bare
def copy_to(
    starts: Ints, ends: Ints, flow: Floats, through: Floats,
    new_starts: Ints, new_ends: Ints, new_flow: Floats, new_through: Floats,
) -> None:  # fmt: skip
    """Write a placement and its flow into the last four arrays."""
    for i in range(len(starts)):
        new_starts[i] = starts[i]
        new_ends[i] = ends[i]
    for tail in range(len(through)):
        new_through[tail] = through[tail]
        for head in range(len(through)):
            new_flow[tail, head] = flow[tail, head]


@bare
def flow_after(
    problem: SearchProblem, partial: bool, starts: Ints, ends: Ints, new_starts: Ints,
    new_ends: Ints, flow: Floats, through: Floats, scratch: Scratch,
) -> float:  # fmt: skip
    """Change a flow from one placement's to the next one's maximal; return its value, tokens/s."""
    for i in range(len(starts)):
        if new_starts[i] != starts[i] or new_ends[i] != ends[i]:
            take_out(ends, flow, through, i + FIRST, scratch.over)
    return fill_up(
        new_starts, new_ends, problem.layers, partial, problem.rates, problem.link_rates, flow,
        through, scratch,
    )  # fmt: skip


@bare
def flow_anew(
    problem: SearchProblem, partial: bool, starts: Ints, ends: Ints, flow: Floats,
    through: Floats, scratch: Scratch,
) -> float:  # fmt: skip
    """Write a placement's maximum flow from none; return its value, tokens/s."""
    flow[:], through[:] = 0.0, 0.0
    return fill_up(
        starts, ends, problem.layers, partial, problem.rates, problem.link_rates, flow, through,
        scratch,
    )  # fmt: skip


@compiled
def anneal(
    problem: SearchProblem, starts: Ints, ends: Ints, partial: bool, loaded: bool,
    rng: np.random.Generator, evaluations: int, goal: float, heat: Heat,
    scratch: Scratch, stop: Ints,
) -> tuple[Ints, Ints, float, int]:  # fmt: skip
    """Return the best placement of a chain, its value and the evaluations made.

    `goal` ends the chain early: a proven bound on the value; so does `stop`, a flag that is raised
    from outside. What is tried stands in the second of two sets of arrays, which change places when
    it is taken.
    """
    places = len(starts) + FIRST
    flow, through = np.zeros((places, places)), np.zeros(places)
    best_flow = flow_anew(problem, partial, starts, ends, flow, through, scratch)
    best = value_of(problem, starts, ends, flow, through, loaded, scratch)
    best_starts, best_ends = starts.copy(), ends.copy()
    new_starts, new_ends = starts.copy(), ends.copy()
    new_flow, new_through = flow.copy(), through.copy()
    score = -np.inf
    cooling = (COLD / heat.hot) ** (1 / max(evaluations, 1))
    temperature = heat.hot
    for done in range(evaluations):
        if best >= goal or stop[0]:
            return best_starts, best_ends, best, done
        temperature *= cooling
        if done % REFRESH == 0:
            flow_anew(problem, partial, starts, ends, flow, through, scratch)
        copy_to(starts, ends, flow, through, new_starts, new_ends, new_flow, new_through)
        if not move(new_starts, new_ends, problem.most, problem.layers, rng):
            continue
        flow_value = flow_after(
            problem, partial, starts, ends, new_starts, new_ends, new_flow, new_through, scratch
        )
        value = value_of(problem, new_starts, new_ends, new_flow, new_through, loaded, scratch)
        best_flow = max(best_flow, flow_value)
        unit = max(best, 1.0) / max(best_flow, 1.0) if loaded else 1.0
        target = AMBITION * max(best_flow, 1.0)
        missing = shortfall(problem, new_starts, new_ends, target, scratch.per_layer)
        new_score = value - heat.coverage * unit * missing
        room = temperature * max(best, 1.0)
        if new_score >= score or rng.random() < np.exp((new_score - score) / room):
            starts, new_starts = new_starts, starts
            ends, new_ends = new_ends, ends
            flow, new_flow = new_flow, flow
            through, new_through = new_through, through
            score = new_score
            if value > best:
                best, best_starts, best_ends = value, starts.copy(), ends.copy()
    return best_starts, best_ends, best, evaluations
