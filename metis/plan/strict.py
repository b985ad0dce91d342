"""The default answer: the strict search in a thread of its own, so that Ctrl-C ends it at once."""

import threading
import time
from collections.abc import Sequence
from math import inf
from typing import Protocol

from metis.inputs.experiment import Experiment
from metis.plan.anytime import Best
from metis.plan.beside import Beside, cheaper
from metis.plan.beside import figures as wider_figures
from metis.plan.convert import to_plan
from metis.plan.lines import EVERY_COUNT, EVERY_SIZE, JOINED, MOST_RUNS, Run, runs
from metis.plan.nearby import Staged, coarse
from metis.plan.outcome import Figure, Outcome, bound_of, cost_of, nothing_fits, ran_out
from metis.plan.problem import Problem
from metis.plan.watch import by_time

LOOK_S = 0.05
"""Seconds between two looks at the search."""


KEPT = 0.25
"""Part of the time that is kept for the wider space where it is asked only after the search."""


class Stoppable(Protocol):
    """A search that can be asked for its best plan, and stopped, from another thread."""

    def run(self) -> None:
        """Search until it is done or stopped."""
        ...

    def stop(self) -> None:
        """Let it end soon."""
        ...

    def best(self) -> Best:
        """Return what is known by now."""
        ...


def strict(experiment: Experiment, problem: Problem, search: Stoppable | None = None) -> Outcome:
    """Return the best plan over all nodes or any part of them, and how good it is.

    The search is the one given, such as one from a plan on, or else one from scratch. Where its
    answer is not proven, or not all group sizes are looked at, the wider space of the whole
    cluster is asked, too, and the better plan is taken.
    """
    limit_s = experiment.search.time_limit_s
    end = time.monotonic() + limit_s
    all_sizes, gap = problem.devices <= EVERY_SIZE, experiment.search.gap or 0.0
    wide = Beside(problem, limit_s) if search is None and not all_sizes else None
    own_s = limit_s if wide else (1 - KEPT) * limit_s
    search = search or Staged(problem, coarse(problem), gap=gap, limit_s=own_s)
    found, interrupted = searched(experiment, search, own_s)
    other, left_s = None, end - time.monotonic()
    if wide is None and not (found.finished and all_sizes) and left_s > 0 and not interrupted:
        wide = Beside(problem, left_s)
    if wide is not None and interrupted:
        wide.stop()
    elif wide is not None:
        other, interrupted = wide.result()
    figures = (
        Figure("search.parts", found.parts, "1"),
        Figure("search.time", found.seconds, "s"),
        *wider_figures(other),
    )
    mine = found.found.cost_ms if found.found else inf
    if other is not None and (better := cheaper(other, mine)) is not None:
        low = min(found.lower_bound_ms, other.lower_bound_ms)
        gap = f"at most {100 * (better.cost_ms / low - 1):.2f} % above the best" if low > 0 else ""
        proof = f"{gap or 'nothing is proven yet'} of all plans with {space(problem)}, or of"
        proof += " --method wider, which has found this one"
        plan = to_plan(
            better,
            experiment=experiment.name,
            method="optimal",
            mode=experiment.search.mode,
            lower_bound_ms=low,
            proof=proof,
        )
        figures = (*figures, cost_of(plan), *bound_of("plan.lower_bound", low))
        return Outcome(plan, figures, f"optimal: {proof}.", interrupted=interrupted)
    if found.found is None:
        if interrupted:
            raise KeyboardInterrupt
        why = nothing_fits(problem) if found.finished else ran_out(experiment)
        return Outcome(None, figures, "optimal: no plan", why_none=why)
    proof = how_good(found, problem)
    plan = to_plan(
        found.found.plan,
        experiment=experiment.name,
        method="optimal",
        mode=experiment.search.mode,
        machines=found.found.machines,
        lower_bound_ms=found.lower_bound_ms,
        proof=proof,
    )
    figures = (*figures, cost_of(plan), *bound_of("plan.lower_bound", found.lower_bound_ms))
    summary = f"optimal: {proof}.{idle(problem, found.found.machines)}"
    return Outcome(plan, figures, summary, interrupted=interrupted)


def searched(experiment: Experiment, search: Stoppable, limit_s: float) -> tuple[Best, bool]:
    """Search until it is done, the time is over or Ctrl-C is pressed; say whether it was."""
    raised = list[BaseException]()

    def work() -> None:
        try:
            search.run()
        except BaseException as error:  # it is raised again where the user waits
            raised.append(error)

    thread = threading.Thread(target=work, daemon=True)
    interrupted = False
    with by_time(experiment.search.time_limit_s, f"search {experiment.name}") as advance:
        end = time.monotonic() + limit_s
        try:
            _until(end, search)
            thread.start()
            while thread.is_alive():
                thread.join(_until(end, search))
                advance(1)
        except KeyboardInterrupt:
            search.stop()
            interrupted = True
        thread.join()
    if raised:
        raise raised[0]
    return search.best(), interrupted


def _until(end: float, search: Stoppable) -> float:
    """Return for how long to wait for a search, and stop it when its time is over."""
    left_s = end - time.monotonic()
    if left_s <= 0:
        search.stop()
        return LOOK_S
    return min(LOOK_S, left_s)


def space(problem: Problem) -> str:
    """Name the space that the bound holds for."""
    found = runs(problem.cluster)
    order = "kinds of nodes" if len(found) <= MOST_RUNS else "device types"
    return (
        f"any of the nodes, {order} in any order, contiguous device groups"
        f" {_sizes(problem.devices, found)}, any profiled degrees and any layer split"
    )


def _sizes(devices: int, found: Sequence[Run]) -> str:
    """Name the sizes of groups, as `metis.plan.lines` lays them out."""
    if devices <= EVERY_SIZE:
        return "of any size"
    most = max(len(run.machines) for run in found)
    whole = "whole nodes" if most <= EVERY_COUNT else "2^k, 3 x 2^k or all whole nodes of a kind"
    joined = len(found) > 1 and most > JOINED
    return f"inside a node or of {whole}" + (
        f" (of a kind with over {JOINED}, 2^k or all where kinds are mixed)" if joined else ""
    )


def how_good(found: Best, problem: Problem) -> str:
    """Say in one sentence how far the plan can be from the best."""
    assert found.found is not None
    where = space(problem)
    if found.lower_bound_ms <= 0:
        return f"nothing is proven yet about plans with {where}"
    gap = found.found.cost_ms / found.lower_bound_ms - 1
    if gap <= 1e-9:
        return f"proven best of all plans with {where}"
    return (
        f"at most {100 * gap:.2f} % above the best ({found.lower_bound_ms:.3f} ms or more) of all"
        f" plans with {where}"
    )


def idle(
    problem: Problem,
    machines: tuple[int, ...],
    what: str = "left idle, as the plan is not slower without them",
) -> str:
    """Say which nodes the plan leaves out."""
    every = problem.cluster.machines()
    left = [node for number, node in enumerate(every) if number not in machines]
    if not left:
        return ""
    counts: dict[tuple[int, str], int] = {}
    for node in left:
        key = (node.devices, node.device)
        counts[key] = counts.get(key, 0) + 1
    told = ", ".join(f"{count} of {size} x {device}" for (size, device), count in counts.items())
    return f" Nodes {what}: {told}."
