"""Gurobi on our matrices, where its package and a licence are there.

The package from the index brings a licence for problems of at most 2000 variables and 2000
constraints; an academic or bought one is found by Gurobi itself.
"""

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from common.errors import InputError
from helix.plan.solvers_matrix import REAL, Floats, Matrices
from helix.plan.solvers_result import (
    MANY,
    Ended,
    Settings,
    Solved,
    Watch,
    never,
    remembered_interrupt,
)

LIMIT = 2000  # variables, and constraints, that the size-limited licence takes

Kind = Literal["none", "size-limited", "academic", "full"]


class Licence(msgspec.Struct, frozen=True):
    """The kind of Gurobi licence here, and one line that explains it."""

    kind: Kind
    text: str

    def refusal(self, matrices: Matrices) -> str | None:
        """Return why this licence does not take the problem, or None if it does."""
        if self.kind == "none":
            return self.text
        if self.kind == "size-limited" and max(matrices.variables, matrices.constraints) > LIMIT:
            return (
                f"{self.text}; this problem has {matrices.variables} and {matrices.constraints}: "
                "prune links, use HiGHS or a full licence"
            )
        return None


@cache
def gurobi_licence() -> Licence:
    """Find out which licence Gurobi would use; starts Gurobi once."""
    try:
        import gurobipy
    except ImportError:
        return Licence("none", "gurobi: gurobipy is not installed (pip install gurobipy)")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "gurobi.log"
        try:
            with gurobipy.Env(empty=True) as environment:
                environment.setParam("LogToConsole", 0)
                environment.setParam("LogFile", str(log))
                environment.start()
        except gurobipy.GurobiError as error:
            return Licence("none", f"gurobi: no licence that works ({error})")
        said = log.read_text() if log.exists() else ""
    return licence_from(said)


def licence_from(said: str) -> Licence:
    """Return the licence that Gurobi's first lines tell of."""
    if "Restricted license" in said:
        text = f"gurobi: the licence is limited to {LIMIT} variables and {LIMIT} constraints"
        return Licence("size-limited", text)
    if "Academic license" in said:
        return Licence("academic", "gurobi: academic licence, without a limit of size")
    return Licence("full", "gurobi: full licence")


def solve_gurobi(
    matrices: Matrices, settings: Settings, start: Floats | None,
    over: Callable[[], bool] = never,
) -> Solved:  # fmt: skip
    """Maximise with Gurobi; stops by the settings, on Ctrl-C and when it is `over`.

    The best found so far is the answer. Raises InputError if there is no licence for a problem of
    this size.
    """
    licence = gurobi_licence()
    refusal = licence.refusal(matrices)
    if refusal:
        raise InputError(refusal)
    import gurobipy

    with gurobipy.Env(empty=True) as environment:
        environment.setParam("OutputFlag", 0)
        environment.start()
        with gurobipy.Model(env=environment) as model:
            _pass(model, matrices, settings, start)
            with remembered_interrupt() as pressed:
                watch = Watch(settings, pressed, over)
                model.optimize(_follower(watch))
                return _answer(model, matrices, settings, watch, licence)


def _pass(model: Any, matrices: Matrices, settings: Settings, start: Floats | None) -> None:
    from gurobipy import GRB, LinExpr

    model.Params.Seed, model.Params.Threads = settings.seed, settings.threads
    model.Params.MIPGap = settings.gap
    if settings.nodes < MANY:
        model.Params.NodeLimit = settings.nodes
    if np.isfinite(settings.max_run_time):
        model.Params.TimeLimit = settings.max_run_time
    kinds = np.array([GRB.CONTINUOUS, GRB.INTEGER, GRB.BINARY])[matrices.kinds]
    x = model.addMVar(
        matrices.variables,
        lb=matrices.lower,
        ub=matrices.upper,
        obj=matrices.costs,
        vtype=kinds,
        name=list(matrices.names),
    )
    model.ModelSense = GRB.MAXIMIZE
    variables = x.tolist()
    for row, (low, high) in enumerate(zip(matrices.row_lower, matrices.row_upper, strict=True)):
        own = slice(matrices.starts[row], matrices.starts[row + 1])
        terms = LinExpr(
            matrices.values[own].tolist(), [variables[c] for c in matrices.columns[own]]
        )
        if low == high:
            model.addLConstr(terms, GRB.EQUAL, low)
        elif np.isfinite(high):
            model.addLConstr(terms, GRB.LESS_EQUAL, high)
        else:
            model.addLConstr(terms, GRB.GREATER_EQUAL, low)
    if start is not None:
        x.Start = np.where(np.isnan(start), GRB.UNDEFINED, start)


def _follower(watch: Watch) -> Any:
    from gurobipy import GRB

    keys = {
        GRB.Callback.MIP: (GRB.Callback.MIP_OBJBST, GRB.Callback.MIP_OBJBND),
        GRB.Callback.MIPSOL: (GRB.Callback.MIPSOL_OBJBST, GRB.Callback.MIPSOL_OBJBND),
    }

    def follow(model: Any, where: int) -> None:
        best, bound = watch.best, watch.bound
        if where in keys:
            best, bound = (model.cbGet(key) for key in keys[where])
            best = best if best > -GRB.INFINITY else -np.inf
            bound = bound if bound < GRB.INFINITY else np.inf
        if watch.see(best, bound):
            model.terminate()

    return follow


def _answer(
    model: Any, matrices: Matrices, settings: Settings, watch: Watch, licence: Licence
) -> Solved:
    from gurobipy import GRB, gurobi

    x = np.array(model.getAttr("X", model.getVars())) if model.SolCount else None
    objective = float(matrices.costs @ x) if x is not None else -np.inf
    whole = (matrices.kinds != REAL).any()
    ended: dict[int, Ended] = {
        GRB.OPTIMAL: "optimal",
        GRB.TIME_LIMIT: "time",
        GRB.NODE_LIMIT: "nodes",
        GRB.INFEASIBLE: "infeasible",
        GRB.INF_OR_UNBD: "infeasible",
        GRB.INTERRUPTED: "interrupted",
    }
    if model.Status not in ended:
        raise RuntimeError(f"Gurobi ended with status {model.Status}")
    bound = float(model.ObjBound) if whole else objective
    watch.see(objective, bound)
    why = ended[model.Status]
    return Solved(
        x=x,
        objective=objective,
        bound=max(bound, objective),
        seconds=watch.seconds(),
        ended=(watch.ended or why) if why == "interrupted" else why,
        solver="Gurobi " + ".".join(map(str, gurobi.version())),
        licence=licence.kind,
        seed=settings.seed,
        trace=tuple(watch.trace),
    )
