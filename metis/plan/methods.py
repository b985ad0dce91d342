"""Every method by name: from an experiment to its plan and what the search has to say."""

import time
from functools import cache
from math import isinf

import msgspec
import numpy as np

from metis.inputs.analytic import ORIGIN
from metis.inputs.cluster import Cluster
from metis.inputs.experiment import PUBLISHED, SYNTHETIC, Experiment, Method
from metis.inputs.profile import Profiles
from metis.inputs.savings import NO_SAVERS
from metis.plan.buy import buy
from metis.plan.convert import to_plan
from metis.plan.cost import BYTES_PER_MS, DECIMAL_PER_MS
from metis.plan.homogeneous import best_uniform, uniform_plans
from metis.plan.optimal import optimal
from metis.plan.original_log import log_text
from metis.plan.outcome import Figure, Outcome, bound_of, cost_of, nothing_fits, ran_out
from metis.plan.plans import Plan, placed
from metis.plan.problem import Policy, Problem
from metis.plan.search import RankedPlan, SearchResult, search
from metis.plan.strict import strict
from metis.plan.switches import of_mode, resolve
from metis.plan.warm import warm_up
from metis.plan.watch import by_time, by_work
from metis.plan.wider import Wider, wider

WALKS_GAP = 0.002
"""Relative distance from the wider bound at which the walks stop by default."""


def make_problem(experiment: Experiment, cluster: Cluster, profiles: Profiles) -> Problem:
    """Return the planning problem of an experiment."""
    settings = experiment.search
    # A GB/s is 10^9 bytes/s; the cost model's, and so the paper's experiments', is the original's.
    decimal = settings.mended() and experiment.profile_kind(cluster) != SYNTHETIC
    return Problem(
        model=experiment.model.resolved(),
        cluster=cluster.with_rates(DECIMAL_PER_MS / BYTES_PER_MS) if decimal else cluster,
        profiles=profiles,
        node_types=settings.node_sequence or tuple(cluster.device_types()),
        switches=resolve(settings.mode, settings.switches),
        max_tp=settings.max_tp or max(key.tp for key in profiles),
        max_batch_size=settings.max_batch_size or max(key.bs for key in profiles),
        group_variance=settings.group_variance,
        max_permute_len=settings.max_permute_len,
        memory_fraction=settings.memory_fraction,
        savers=settings.savers(known=profiles.origin == ORIGIN),
    )


def make_plan(
    experiment: Experiment,
    problem: Problem,
    method: Method,
) -> Outcome:
    """Answer the experiment's question by a method."""
    outcome = _answered(experiment, problem, method)
    if outcome.plan is None or problem.switches.group_memory:
        return outcome
    return outcome._replace(plan=placed(outcome.plan, problem.cluster))


def _answered(experiment: Experiment, problem: Problem, method: Method) -> Outcome:
    mended = problem.switches == of_mode("strict")
    if method in PUBLISHED:
        problem = msgspec.structs.replace(problem, savers=NO_SAVERS)
    warm_up(method, strict=mended)
    if method == "optimal" and mended and experiment.search.buys():
        return buy(experiment, problem)
    if method == "optimal" and mended:
        return strict(experiment, problem)
    if method in ("optimal", "walks"):
        return _walks(experiment, problem, method)
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
        return Outcome(None, figures, summary, log, nothing_fits(problem))
    plan = to_plan(
        best,
        experiment=experiment.name,
        method=policy,
        mode=experiment.search.mode,
        proof=f"least cost of the {len(result.plans.cost)} plans that the walk keeps",
    )
    return Outcome(plan, (*figures, cost_of(plan)), summary, log)


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


def _walks(experiment: Experiment, problem: Problem, method: Method) -> Outcome:
    settings = experiment.search
    wider_space = cache(lambda: wider(problem, time_limit_s=settings.bound_time_s))
    with by_time(settings.time_limit_s, f"search {experiment.name}") as advance:
        found = optimal(
            problem,
            time_limit_s=settings.time_limit_s,
            outer_bound=lambda: wider_space().lower_bound_ms,
            gap=WALKS_GAP if settings.gap is None else settings.gap,
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
        why = nothing_fits(problem) if found.proven else ran_out(experiment)
        return Outcome(None, figures, f"{method}: {walked}", why_none=why)
    above = 100 * (found.plan.cost_ms / found.lower_bound_ms - 1)
    proof = (
        f"proven best over all layouts ({walked})"
        if found.proven
        else f"at most {above:.2f} % above the best of all layouts ({walked})"
    )
    plan = to_plan(
        found.plan,
        experiment=experiment.name,
        method=method,
        mode=settings.mode,
        lower_bound_ms=found.lower_bound_ms,
        proof=proof,
    )
    figures = (
        *figures,
        cost_of(plan),
        Figure("plan.lower_bound", found.lower_bound_ms, "ms"),
        *bound_of("plan.wider_lower_bound", wider_space().lower_bound_ms),
    )
    return Outcome(plan, figures, f"{method}: {proof}. {_beside_wider(plan, wider_space())}")


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
    figures = (*figures, *bound_of("plan.lower_bound", found.lower_bound_ms))
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
    return Outcome(plan, (*figures, cost_of(plan)), f"wider: {proof}")


def _no_wider_plan(experiment: Experiment, problem: Problem, found: Wider) -> str:
    if not found.finished:
        return ran_out(experiment)
    if isinf(found.lower_bound_ms):
        return nothing_fits(problem)
    return (
        "no plan was met that holds its in-flight micro-batches in memory, though none above"
        f" {found.lower_bound_ms:.3f} ms is excluded; use --method optimal, or add memory"
    )


def _uniform(experiment: Experiment, problem: Problem) -> Outcome:
    started = time.perf_counter()
    plans, found = len(uniform_plans(problem)), best_uniform(problem)
    figures = (
        Figure("search.plans", plans, "1"),
        _seconds([time.perf_counter() - started]),
    )
    if found is None:
        return Outcome(None, figures, "uniform: no plan", why_none=nothing_fits(problem))
    summary = f"uniform: cheapest that fits of {plans} plans with equal stages"
    plan = to_plan(
        found,
        experiment=experiment.name,
        method="uniform",
        mode=experiment.search.mode,
        proof=summary,
    )
    return Outcome(plan, (*figures, cost_of(plan)), summary)
