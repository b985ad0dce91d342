"""The answer for a plan that runs on nodes of which some are gone, or where some came.

The running plan is repaired at once; from there the strict search goes on, near it and then
everywhere, so that the answer is never slower than the repaired plan. Equal nodes are seated so
that least of the state has to move.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from common.errors import InputError
from metis.inputs.cluster import Cluster
from metis.inputs.experiment import Experiment
from metis.plan.change import Change, change
from metis.plan.convert import to_plan
from metis.plan.moves import Migration, Moves
from metis.plan.nearby import Staged, coarse, near
from metis.plan.outcome import Figure, Outcome
from metis.plan.plans import PlacedNode, Plan
from metis.plan.problem import Problem
from metis.plan.repair import repaired
from metis.plan.state import bytes_of
from metis.plan.strict import KEPT, strict
from metis.plan.warm import warm_up


class Step(NamedTuple):
    """A plan to change to, and what moves for it."""

    plan: Plan
    moves: Moves


class Replanned(NamedTuple):
    """What came of it; `outcome.plan` is `new.plan`."""

    change: Change
    cluster: Cluster
    outcome: Outcome
    new: Step | None
    repaired: Step | None
    """The running plan on what is left of its nodes; None where that does not fit."""


def replan(experiment: Experiment, problem: Problem, cluster: Cluster, before: Plan) -> Replanned:
    """Return the plan for the cluster of now, and what moves from the running plan to it.

    Raises:
        InputError: another method or objective is asked for, or the plan is of another model.
    """
    settings = experiment.search
    if settings.method != "optimal" or not settings.mended() or settings.buys():
        raise InputError(
            "--replan needs search.method optimal in mode strict without switches, objective time"
            " and no search.max_usd_per_hour; leave these out"
        )
    what = change(before, problem.model, problem.cluster.machines())
    warm_up("optimal", strict=True)
    start = repaired(problem, what)
    place = near(problem, start, what.came) if start else coarse(problem)
    limit_s = (1 - KEPT) * settings.time_limit_s
    search = Staged(problem, place, start=start, gap=settings.gap or 0.0, limit_s=limit_s)
    outcome = strict(experiment, problem, search)
    old = start and to_plan(
        start.plan,
        experiment=experiment.name,
        method="optimal",
        mode=settings.mode,
        machines=start.machines,
        proof=f"the plan before, {before.cost_ms:.3f} ms, on what is left of its nodes",
    )
    each = bytes_of(experiment.profile.dtype)
    steps = [
        _step(Migration(what, plan, cluster, each)) if plan else None
        for plan in (outcome.plan, old)
    ]
    if steps[0] is not None:
        outcome = _told(outcome, steps[0], steps[1], what)
    return Replanned(what, cluster, outcome, *steps)


def _step(migration: Migration) -> Step:
    plan = migration.cheapest()
    return Step(plan, migration.moves(plan.machines))


def _told(outcome: Outcome, new: Step, old: Step | None, what: Change) -> Outcome:
    """Return the outcome with what has changed and what moves."""
    figures = (
        Figure("plan.cost_before", what.before.cost_ms, "ms"),
        *((Figure("plan.cost_repaired", old.plan.cost_ms, "ms"),) if old else ()),
        Figure("plan.moved", new.moves.total, "By"),
        Figure("plan.from_checkpoint", new.moves.lost, "By"),
    )
    return outcome._replace(
        plan=new.plan,
        figures=(*outcome.figures, *figures),
        summary=f"{outcome.summary} {_nodes_of(what)} {_moved(new.moves)}",
    )


def _nodes_of(what: Change) -> str:
    """Say which nodes are gone and how many came."""
    gone = f"Gone: {listed(what.gone)}." if what.gone else "No node is gone."
    came = len(what.came)
    return gone + (f" Nodes that the plan before does not use: {came}." if came else "")


def listed(nodes: Sequence[PlacedNode]) -> str:
    """Name nodes by their hosts, a few of them, and count all by kind."""
    counts = Counter((node.devices, node.device) for node in nodes)
    kinds = ", ".join(f"{count} of {size} x {device}" for (size, device), count in counts.items())
    some = ", ".join(node.host for node in nodes[:4])
    return f"{kinds} ({some}{', ...' if len(nodes) > 4 else ''})"


def _moved(moves: Moves) -> str:
    """Say what moves, and from where."""
    said = f"{amount(moves.total)} of weights and optimizer states move between nodes"
    if not moves.lost:
        return f"{said}; all of the state is on nodes that are left."
    return (
        f"{said}; {amount(moves.lost)} more are on no node that is left, so the job goes on from"
        " its last checkpoint."
    )


def amount(size: float) -> str:
    """Return bytes in words."""
    for unit, of in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= of:
            return f"{size / of:.1f} {unit}"
    return f"{size / 1e3:.1f} kB" if size else "nothing"
