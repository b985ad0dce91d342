"""Every method by name: from an experiment to its plan and what the search has to say."""

import time
from functools import cache
from math import isinf
from typing import NamedTuple

import numpy as np

from metis.inputs.cluster import Cluster
from metis.inputs.experiment import Experiment, Method
from metis.inputs.profile import Profiles
from metis.plan.convert import to_plan
from metis.plan.homogeneous import uniform_plans, uniform_survivor
from metis.plan.optimal import optimal
from metis.plan.original_log import log_text
from metis.plan.plans import Plan
from metis.plan.problem import Policy, Problem
from metis.plan.search import RankedPlan, SearchResult, search
from metis.plan.switches import resolve
from metis.plan.warm import warm_up
from metis.plan.watch import by_time, by_work
from metis.plan.wider import Wider, wider


class Figure(NamedTuple):
    """One number a method reports: name, value, unit, samples behind it."""

    name: str
    value: float
    unit: str
    samples: tuple[float, ...] = ()


class Outcome(NamedTuple):
    """A method's answer. `plan` is None when nothing fits."""

    plan: Plan | None
    figures: tuple[Figure, ...]
    summary: str
    """One or two sentences for the terminal."""
    original_log: str = ""
    why_none: str = ""


def make_problem(experiment: Experiment, cluster: Cluster, profiles: Profiles) -> Problem:
    """Return the planning problem of an experiment."""
    settings = experiment.search
    return Problem(
        model=experiment.model,
        cluster=cluster,
        profiles=profiles,
        node_types=settings.node_sequence or tuple(cluster.device_types()),
        switches=resolve(settings.mode, settings.switches),
        max_tp=settings.max_tp or max(key.tp for key in profiles),
        max_batch_size=settings.max_batch_size or max(key.bs for key in profiles),
        group_variance=settings.group_variance,
        max_permute_len=settings.max_permute_len,
        memory_fraction=settings.memory_fraction,
    )


def make_plan(
    experiment: Experiment,
    problem: Problem,
    method: Method,
) -> Outcome:
    """Answer the experiment's question by a method."""
    warm_up()
    if method == "optimal":
        return _optimal(experiment, problem)
    if method == "wider":
        return _wider(experiment, problem)
    if method == "uniform":
        return _uniform(experiment, problem)
    return _policy(experiment, problem, method)


def _policy(experiment: Experiment, problem: Problem, policy: Policy) -> Outcome:
    seconds, result = list[float](), None
    for trial in range(1, experiment.search.trials + 1):
        started = time.perf_counter()
        layouts = problem.layouts()
        what = f"{policy} search of {experiment.name}, layouts"
        if experiment.search.trials > 1:
            what += f" (trial {trial} of {experiment.search.trials})"
        with by_work(len(layouts), what) as advance:
            result = search(problem, policy, layouts=layouts, advance=advance)
        seconds.append(time.perf_counter() - started)
    assert result is not None
    figures = (*_counts(result), _seconds(seconds))
    log = log_text(result, 1000 * float(np.mean(seconds)))
    whole = result.consistent & (result.plans.empty == 0)
    best = result.best(whole)
    summary = f"{policy}: {result.steps} search steps, {len(result.plans.cost)} plans"
    cheapest = result.best()
    if cheapest is not None and (best is None or cheapest.cost_ms < best.cost_ms):
        summary += (
            f"; the cheapest entry ({cheapest.cost_ms:.2f} ms) cannot be carried out"
            f" ({_why_not(cheapest, problem)}), so the best one that can is taken"
        )
    if cheapest is not None:
        figures += (Figure("plan.cheapest_entry", cheapest.cost_ms, "ms"),)
    if best is None:
        return Outcome(None, figures, summary, log, _nothing_fits(problem))
    plan = to_plan(
        best,
        experiment=experiment.name,
        method=policy,
        mode=experiment.search.mode,
        proof=f"least cost of the {len(result.plans.cost)} plans that the walk keeps",
    )
    return Outcome(plan, (*figures, _cost(plan)), summary, log)


def _counts(result: SearchResult) -> tuple[Figure, ...]:
    return (
        Figure("search.steps", result.steps, "1"),
        Figure("search.plans", len(result.plans.cost), "1"),
        Figure("search.layouts", len(result.layouts), "1"),
        Figure("search.phantom_plans", int(result.phantom.sum()), "1"),
        Figure("search.plans_with_lost_layers", int(result.lossy.sum()), "1"),
        Figure("search.plans_with_empty_stages", int((result.plans.empty > 0).sum()), "1"),
    )


def _why_not(plan: RankedPlan, problem: Problem) -> str:
    if plan.layout.phantom:
        return "a phantom: the original costs its first stage only"
    if plan.survivor.split[-1] < problem.model.layers:
        held = plan.survivor.split[-1]
        return f"it holds {held} of {problem.model.layers} layers"
    return "it has an empty stage"


def _seconds(samples: list[float]) -> Figure:
    return Figure("search.time", float(np.median(samples)), "s", tuple(samples))


def _cost(plan: Plan) -> Figure:
    return Figure("plan.cost", plan.cost_ms, "ms")


def _bound(name: str, bound_ms: float) -> tuple[Figure, ...]:
    """Return a lower bound as a figure; none where the time did not suffice for one."""
    return (Figure(name, bound_ms, "ms"),) if bound_ms > 0 else ()


def _optimal(experiment: Experiment, problem: Problem) -> Outcome:
    settings = experiment.search
    wider_space = cache(lambda: wider(problem, time_limit_s=settings.bound_time_s))
    with by_time(settings.time_limit_s, f"search {experiment.name}") as advance:
        found = optimal(
            problem,
            time_limit_s=settings.time_limit_s,
            outer_bound=lambda: wider_space().lower_bound_ms,
            gap=settings.gap,
            advance=advance,
        )
    figures = (
        Figure("search.layouts_walked", found.layouts_walked, "1"),
        Figure("search.cells", found.cells, "1"),
        Figure("search.cells_opened", found.cells_opened, "1"),
        Figure("search.time", found.seconds, "s"),
    )
    walked = (
        f"{found.layouts_walked} layouts walked, {found.cells_opened} of {found.cells} cells opened"
    )
    if found.plan is None:
        why = _nothing_fits(problem) if found.proven else _ran_out(experiment)
        return Outcome(None, figures, f"optimal: {walked}", why_none=why)
    above = 100 * (found.plan.cost_ms / found.lower_bound_ms - 1)
    proof = (
        f"proven best over all layouts ({walked})"
        if found.proven
        else f"at most {above:.2f} % above the best of all layouts ({walked})"
    )
    plan = to_plan(
        found.plan,
        experiment=experiment.name,
        method="optimal",
        mode=settings.mode,
        lower_bound_ms=found.lower_bound_ms,
        proof=proof,
    )
    figures = (
        *figures,
        _cost(plan),
        Figure("plan.lower_bound", found.lower_bound_ms, "ms"),
        *_bound("plan.wider_lower_bound", wider_space().lower_bound_ms),
    )
    return Outcome(plan, figures, f"optimal: {proof}. {_beside_wider(plan, wider_space())}")


def _beside_wider(plan: Plan, bound: Wider) -> str:
    """Say how far the plan is from the bound of the wider space, and whether that has better."""
    if bound.lower_bound_ms <= 0:
        return "The wider space was not bounded within search.bound_time_s; raise it."
    gap = 100 * (plan.cost_ms / bound.lower_bound_ms - 1)
    text = (
        f"Any groups, degrees and layer splits: no plan below {bound.lower_bound_ms:.3f} ms"
        f" (gap {gap:.2f} %)"
    )
    if bound.plan is not None and bound.plan.cost_ms < plan.cost_ms * (1 - 1e-9):
        return f"{text}; --method wider has one at {bound.plan.cost_ms:.3f} ms."
    return f"{text}."


def _wider(experiment: Experiment, problem: Problem) -> Outcome:
    limit_s = experiment.search.time_limit_s
    with by_time(limit_s, f"search the wider space of {experiment.name}") as advance:
        found = wider(problem, time_limit_s=limit_s, advance=advance)
    figures = (
        Figure("search.parts", found.parts, "1"),
        Figure("search.time", found.seconds, "s"),
    )
    if found.plan is None:
        return Outcome(
            None, figures, "wider: no plan", why_none=_no_wider_plan(experiment, problem, found)
        )
    figures = (*figures, *_bound("plan.lower_bound", found.lower_bound_ms))
    proof = (
        "nothing is proven, as not all of the wider space was looked at within"
        f" search.time_limit_s = {experiment.search.time_limit_s:g}; raise it"
    )
    if found.lower_bound_ms > 0:
        gap = found.plan.cost_ms / found.lower_bound_ms - 1
        proof = (
            f"no plan of the wider space is below {found.lower_bound_ms:.3f} ms: at most"
            f" {100 * gap:.2f} % above the best"
        )
    plan = to_plan(
        found.plan,
        experiment=experiment.name,
        method="wider",
        mode=experiment.search.mode,
        lower_bound_ms=found.lower_bound_ms,
        proof=proof,
    )
    return Outcome(plan, (*figures, _cost(plan)), f"wider: {proof}")


def _no_wider_plan(experiment: Experiment, problem: Problem, found: Wider) -> str:
    if not found.finished:
        return _ran_out(experiment)
    if isinf(found.lower_bound_ms):
        return _nothing_fits(problem)
    return (
        "no plan was met that holds its in-flight micro-batches in memory, though none above"
        f" {found.lower_bound_ms:.3f} ms is excluded; use --method optimal, or add memory"
    )


def _uniform(experiment: Experiment, problem: Problem) -> Outcome:
    started = time.perf_counter()
    plans = sorted(uniform_plans(problem), key=lambda plan: plan.cost_ms)
    found = next((s for s in (uniform_survivor(problem, p) for p in plans) if s), None)
    figures = (
        Figure("search.plans", len(plans), "1"),
        _seconds([time.perf_counter() - started]),
    )
    if found is None:
        return Outcome(None, figures, "uniform: no plan", why_none=_nothing_fits(problem))
    summary = f"uniform: cheapest that fits of {len(plans)} plans with equal stages"
    plan = to_plan(
        found,
        experiment=experiment.name,
        method="uniform",
        mode=experiment.search.mode,
        proof=summary,
    )
    return Outcome(plan, (*figures, _cost(plan)), summary)


def _ran_out(experiment: Experiment) -> str:
    return (
        f"no plan was found within search.time_limit_s = {experiment.search.time_limit_s:g};"
        " raise it"
    )


def _nothing_fits(problem: Problem) -> str:
    memory = sum(node.memory_mb * node.devices for node in problem.cluster.machines())
    return (
        f"no plan fits: {problem.model.layers} layers with a global batch of"
        f" {problem.model.global_batch} on {problem.devices} devices with {memory / 1024:.0f} GB in"
        " all; add devices or memory, raise search.max_tp or profile larger tensor degrees, or"
        " make the model smaller"
    )
