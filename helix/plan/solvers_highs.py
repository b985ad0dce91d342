"""HiGHS on our matrices."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

from helix.plan.solvers_matrix import REAL, Floats, Matrices
from helix.plan.solvers_result import Ended, Settings, Solved, Watch, never, remembered_interrupt

LICENCE = "none needed (MIT)"
MAXIMISE, ROW_WISE = -1, 2  # HiGHS' own numbers


def solve_highs(
    matrices: Matrices, settings: Settings, start: Floats | None,
    over: Callable[[], bool] = never,
) -> Solved:  # fmt: skip
    """Maximise with HiGHS; stops by the settings, on Ctrl-C and when it is `over`.

    The best found so far is the answer.
    """
    from highspy import Highs

    highs = Highs()
    _configure(highs, settings)
    _pass(highs, matrices, start)
    with remembered_interrupt() as pressed:
        watch = Watch(settings, pressed, over)

        def follow(event: Any) -> None:
            state = event.data_out
            if watch.see(state.mip_primal_bound, state.mip_dual_bound):
                event.interrupt()

        def stop(event: Any) -> None:  # inside one linear problem: its objective says nothing
            if watch.see(watch.best, watch.bound):
                event.interrupt()

        highs.cbMipImprovingSolution += follow
        highs.cbMipInterrupt += follow
        highs.cbSimplexInterrupt += stop
        highs.run()
        return _answer(highs, matrices, settings, watch)


def _configure(highs: Any, settings: Settings) -> None:
    """Set the options but for threads: HiGHS refuses another number of them in one process."""
    options = {
        "output_flag": False,
        "parallel": "off",
        "random_seed": settings.seed,
        "mip_rel_gap": settings.gap,
        "time_limit": settings.max_run_time,
        "mip_max_nodes": settings.nodes,
    }
    for name, value in options.items():
        highs.setOptionValue(name, value)


def _pass(highs: Any, matrices: Matrices, start: Floats | None) -> None:
    highs.passModel(
        matrices.variables,
        matrices.constraints,
        matrices.nonzeros,
        ROW_WISE,
        MAXIMISE,
        0.0,
        matrices.costs,
        matrices.lower,
        matrices.upper,
        matrices.row_lower,
        matrices.row_upper,
        matrices.starts[:-1].astype(np.int32),
        matrices.columns.astype(np.int32),
        matrices.values,
        (matrices.kinds != REAL).astype(np.int32),
    )
    if start is not None:
        known = np.flatnonzero(~np.isnan(start)).astype(np.int32)
        highs.setSolution(len(known), known, start[known])


def _answer(highs: Any, matrices: Matrices, settings: Settings, watch: Watch) -> Solved:
    from highspy import HighsModelStatus, SolutionStatus

    info, status = highs.getInfo(), highs.getModelStatus()
    found = info.primal_solution_status == SolutionStatus.kSolutionStatusFeasible
    x = np.array(highs.getSolution().col_value) if found else None
    objective = float(matrices.costs @ x) if x is not None else -np.inf
    whole = (matrices.kinds != REAL).any()
    bound = info.mip_dual_bound if whole else objective
    ended: dict[Any, Ended] = {
        HighsModelStatus.kOptimal: "optimal",
        HighsModelStatus.kTimeLimit: "time",
        HighsModelStatus.kSolutionLimit: "nodes",
        HighsModelStatus.kInfeasible: "infeasible",
    }
    if status not in ended and watch.ended is None:
        raise RuntimeError(f"HiGHS ended with {highs.modelStatusToString(status)}")
    watch.see(objective, bound)
    return Solved(
        x=x,
        objective=objective,
        bound=max(bound, objective),
        seconds=watch.seconds(),
        ended=ended.get(status) or watch.ended or "time",
        solver=f"HiGHS {version('highspy')}",
        licence=LICENCE,
        seed=settings.seed,
        trace=tuple(watch.trace),
    )
