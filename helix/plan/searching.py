"""The method `search`: our annealing, with the simulator in the loop, for a question."""

from collections.abc import Callable
from contextlib import suppress

from common.errors import CaseError, InputError
from helix.inputs.search import Objective
from helix.plan.baselines import petals, swarm
from helix.plan.blocks import blocks
from helix.plan.clock import Clock
from helix.plan.placement import UNUSED
from helix.plan.placing import fewest_stages
from helix.plan.plans import Trace
from helix.plan.question import Intervals, Made, Question, Simulator, workers
from helix.plan.search import Found, search
from helix.plan.search_chains import Budget
from helix.plan.search_problem import search_problem

FEW = 10  # machines: on fewer, budgets shrink, since there is less to find
EVALUATIONS, SIMULATIONS = 2_500, 24  # for each pair of few machines, for each of few


def place_search(
    question: Question, objective: Objective, seed: int, simulator: Simulator,
    advance: Callable[[int], None], clock: Clock,
) -> Made:  # fmt: skip
    """Return the best placement found; CaseError where work passes through none."""
    found = searched(question, objective, seed, simulator, advance, clock)
    facts = {
        "evaluations": found.evaluations,
        "simulations": found.simulations,
        "solver": "annealing and simulation" if objective == "simulated" else "annealing",
        "simulated": found.value if found.simulations else None,
        "trace": tuple(Trace(step.seconds, step.value) for step in found.steps),
    }
    return Made((question.alone(question.placed(found.intervals)),), facts)


def searched(
    question: Question, objective: Objective, seed: int, simulator: Simulator,
    advance: Callable[[int], None], clock: Clock,
) -> Found:  # fmt: skip
    """Return what the search finds within the experiment's budgets and the clock's time."""

    def simulate(runs: Intervals, draw: int) -> float:
        one = question.service(question.placed(runs))
        return simulator.offline(one, draw, clock.flag) if one.flow > 0 else 0.0

    problem = search_problem(question.cluster, question.model, question.profiles, question.speed)
    found = search(
        problem,
        starts(question, objective, clock),
        objective,
        budget_of(question),
        seed,
        question.bound(),
        simulate,
        advance,
        clock,
        question.search.partial,
    )
    if found.value <= 0:
        budget = "search.time_limit_s" if clock.over() else "search.chains or search.evaluations"
        raise CaseError(
            f"the search found no placement that work can pass through in {found.evaluations:,}"
            f" evaluations; raise {budget}, or add links or machines"
        )
    return found


def budget_of(question: Question) -> Budget:
    """Return what the search may spend on the question's machines."""
    settings, machines = question.search, len(question.cluster.nodes)
    evaluations, simulations = settings.evaluations, settings.simulations
    if machines < FEW:
        evaluations = min(evaluations, EVALUATIONS * machines**2)
        simulations = min(simulations, SIMULATIONS * machines)
    return Budget(settings.chains, evaluations, simulations, workers(settings))


def starts(question: Question, objective: Objective, clock: Clock) -> list[Intervals]:
    """Return placements to begin from; every machine holds layers in them."""
    found = [petals(question.cluster, question.model, question.speed, s).intervals for s in (0, 1)]
    with suppress(InputError):  # fewer machines than equal stages
        equal = swarm(question.cluster, question.model, question.speed, fewest_stages(question))
        found.append(equal.intervals)
    if objective == "flow":
        with suppress(InputError):
            found.append(blocks(question.cluster, question.model.layers, question.speed, clock))
    return [tuple(run if run != UNUSED else (0, 1) for run in runs) for runs in found]
