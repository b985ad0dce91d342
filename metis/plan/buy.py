"""The answer where prices matter: the cheapest iteration, or the fastest within a budget."""

from math import inf

from metis.inputs.experiment import Experiment
from metis.plan.convert import to_plan
from metis.plan.money import HOUR_MS, Bargain, Wish, list_price, price
from metis.plan.outcome import Figure, Outcome, bound_of, cost_of, nothing_fits, ran_out
from metis.plan.problem import Problem
from metis.plan.strict import idle, searched, space

TOKENS = 1e9
"""Tokens that a price is told for."""


def buy(experiment: Experiment, problem: Problem) -> Outcome:
    """Return the plan that is best for the money, what it costs, and how good it is."""
    settings = experiment.search
    limit = settings.max_usd_per_hour
    wish = Wish(settings.objective == "cost", limit or inf)
    search = Bargain(problem, wish, gap=settings.gap or 0.0)
    best, interrupted = searched(experiment, search, settings.time_limit_s)
    figures = (Figure("search.parts", best.parts, "1"), Figure("search.time", best.seconds, "s"))
    if best.found is None:
        if interrupted:
            raise KeyboardInterrupt
        why = nothing_fits(problem) if best.finished else ran_out(experiment)
        if best.finished and limit is not None:
            why += f"; or raise search.max_usd_per_hour ({limit:g})"
        return Outcome(None, figures, "optimal: no plan", why_none=why)
    machines = problem.cluster.machines()
    usd = price([machines[number] for number in best.found.machines])
    tokens = problem.model.global_batch * problem.model.sequence_length
    per_tokens = best.found.cost_ms / HOUR_MS * usd * TOKENS / tokens
    proof = _how_good(search, best.lower_bound_ms, problem)
    bound_ms = None if wish.cost else best.lower_bound_ms
    plan = to_plan(
        best.found.plan,
        experiment=experiment.name,
        method="optimal",
        mode=settings.mode,
        machines=best.found.machines,
        lower_bound_ms=bound_ms,
        proof=proof,
    )
    figures = (
        *figures,
        cost_of(plan),
        Figure("plan.price", usd, "USD/h"),
        Figure("plan.token_price", per_tokens, "USD/1e9 tokens"),
        *(bound_of("plan.lower_bound", bound_ms) if bound_ms is not None else ()),
    )
    left_out = idle(problem, best.found.machines, "left out")
    summary = (
        f"optimal: {usd:.2f} USD an hour, {per_tokens:.4g} USD for 10^9 tokens; {proof}.{left_out}"
    )
    listed = dict.fromkeys(node.device for node in machines if node.usd_per_hour is None)
    if listed:
        prices = ", ".join(f"{device} {list_price(device):g}" for device in listed)
        summary += f" List prices of common/devices.toml, USD an hour: {prices}."
    return Outcome(plan, figures, summary, interrupted=interrupted)


def _how_good(search: Bargain, lower: float, problem: Problem) -> str:
    """Say in one sentence how far the plan can be from the best for the money."""
    best = "cheapest" if search.wish.cost else "fastest"
    where = f"all plans with {space(problem)}"
    if search.wish.usd_per_hour < inf:
        where += f", within {search.wish.usd_per_hour:g} USD an hour"
    if not search.every:
        where += ", with 2^k or all of the nodes of a kind"
    if lower <= 0:
        return f"nothing is proven yet about {where}"
    gap = search.value / lower - 1
    if gap <= 1e-9:
        return f"proven the {best} of {where}"
    return f"at most {100 * gap:.2f} % above the {best} of {where}"
