"""One way to HiGHS and to Gurobi: the same matrices in, the same figures out.

HiGHS is the default. Gurobi is asked for by name, or taken by `auto` where its licence is large
enough for the problem; the licence that comes with its Python package is not for most of ours.
"""

from typing import Literal

from helix.plan.solvers_gurobi import gurobi_licence, solve_gurobi
from helix.plan.solvers_highs import solve_highs
from helix.plan.solvers_matrix import Floats, Matrices
from helix.plan.solvers_result import Settings, Solved

SolverName = Literal["highs", "gurobi", "auto"]


def solve(
    matrices: Matrices,
    settings: Settings | None = None,
    *,
    solver: SolverName = "highs",
    start: Floats | None = None,
) -> Solved:
    """Maximise; at a limit or on Ctrl-C the best found so far is the answer.

    `start` is a known solution; where it is NaN the solver completes it. Raises InputError if
    Gurobi is asked for and has no licence for a problem of this size.
    """
    settings = settings or Settings()
    if solver == "auto":
        solver = "highs" if gurobi_licence().refusal(matrices) else "gurobi"
    run = {"highs": solve_highs, "gurobi": solve_gurobi}[solver]
    return run(matrices, settings, start)
