"""One way to HiGHS and to Gurobi: the same matrices in, the same figures out.

HiGHS is the default. Gurobi is asked for by name, or taken by `auto` where its licence is large
enough for the problem; the licence that comes with its Python package is not for most of ours.
"""

from collections.abc import Callable
from typing import Literal

import msgspec
import numpy as np

from helix.plan.solvers_gurobi import gurobi_licence, solve_gurobi
from helix.plan.solvers_highs import solve_highs
from helix.plan.solvers_matrix import Floats, Matrices
from helix.plan.solvers_result import Settings, Solved, never

SolverName = Literal["highs", "gurobi", "auto"]

FEASIBLE = 1e-6  # by how much a row may be missed, as the solvers have it


def solve(
    matrices: Matrices,
    settings: Settings | None = None,
    *,
    solver: SolverName = "highs",
    start: Floats | None = None,
    over: Callable[[], bool] = never,
) -> Solved:
    """Maximise; at a limit, on Ctrl-C or when it is `over` the best found so far is the answer.

    `start` is a known solution; where it is NaN the solver completes it. A whole one is the answer
    where time is up before the solver has looked at it. Raises InputError if Gurobi is asked for
    and has no licence for a problem of this size.
    """
    settings = settings or Settings()
    if solver == "auto":
        solver = "highs" if gurobi_licence().refusal(matrices) else "gurobi"
    run = {"highs": solve_highs, "gurobi": solve_gurobi}[solver]
    solved = run(matrices, settings, start, over)
    if solved.x is not None or start is None or np.isnan(start).any():
        return solved
    if solved.ended == "infeasible" or matrices.violation(start) > FEASIBLE:
        return solved
    value = float(matrices.costs @ start)
    return msgspec.structs.replace(solved, x=start, objective=value, bound=max(solved.bound, value))
