"""The plan of an experiment by its method; see `helix/README.md` for what each does."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from helix.inputs.experiment import ROOFLINE, Experiment
from helix.inputs.search import Method, Objective
from helix.plan.clock import Clock
from helix.plan.contest import estimated
from helix.plan.memory import Held, held_by, kv_tokens
from helix.plan.placing import PLACING
from helix.plan.plans import Plan, Service
from helix.plan.portfolio import place_portfolio
from helix.plan.question import Question, Simulator, ask
from helix.plan.search_problem import search_problem
from helix.plan.searching import place_search
from helix.plan.sensitivity import without_each

ANALYTIC = "analytic profile"
UNKNOWN = "what each machine contributes is not computed: too many links, or flow beyond a profile"


def make_plan(
    experiment: Experiment,
    method: Method,
    objective: Objective,
    seed: int,
    simulator: Simulator,
    advance: Callable[[int], None],
    clock: Clock | None = None,
) -> Plan:
    """Return the plan; `simulator` judges placements, `advance` is told of finished work.

    Where time is up on the clock, or it has heard Ctrl-C, the plan is of the best until then.
    """
    clock = clock or Clock(experiment.search.time_limit_s)
    question = ask(experiment)
    own = method in ("portfolio", "search")
    if method in PLACING:
        made = PLACING[method](question, seed, clock)
    else:
        place = place_portfolio if method == "portfolio" else place_search
        made = place(question, objective, seed, simulator, advance, clock)
    problem = search_problem(question.cluster, question.model, question.profiles, question.speed)
    analytic = experiment.profile.source == ROOFLINE
    without = without_each(question, made.services)
    plan = Plan(
        experiment=experiment.name,
        method=method,
        objective=objective if own else "flow",
        services=made.services,
        flow=sum(one.flow for one in made.services),
        bound=question.bound(),
        estimate=_sum([estimated(question, problem, one) for one in made.services]),
        served_bound=question.served_bound(simulator.mix),
        machines=tuple(node.kind for node in question.cluster.nodes),
        seed=seed,
        seconds=clock.seconds(),
        ended="interrupted" if clock.interrupted else "time limit" if clock.over() else "",
        profile=ANALYTIC if analytic else "measured profile",
        notes=(*(question.model.notes if analytic else ()), *(() if without else (UNKNOWN,))),
        without=without or (),
        **_memory(question, made.services),
    )
    return msgspec.structs.replace(plan, **made.facts)


def _memory(question: Question, services: Sequence[Service]) -> dict[str, Any]:
    """Return what the machines hold, and how many tokens all KV caches keep."""
    held, tokens = list[Held](), 0
    for one in services:
        kinds = one.kinds or tuple(question.cluster.nodes[i].kind for i in one.machines)
        mine = held_by(
            question.model, question.profiles, kinds, one.machines, one.intervals, one.kv_entries
        )
        held.extend(mine)
        tokens += kv_tokens(one.layers, one.intervals, mine)
    return {"held": tuple(held), "kv_tokens": tokens}


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
