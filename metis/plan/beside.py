"""The wider space of the whole cluster, asked beside the strict search where that proves nothing.

The strict space leaves group sizes out beyond 32 devices, and its search may be out of time; the
default answer is to be no worse than `--method wider` all the same.
"""

import threading

from metis.plan.outcome import Figure
from metis.plan.problem import Problem
from metis.plan.search import RankedPlan
from metis.plan.wider import Wider, wider

LOOK_S = 0.05
"""Seconds between two looks at the thread, so that Ctrl-C is heard."""


def beside(problem: Problem, left_s: float) -> tuple[Wider | None, bool]:
    """Return what the wider space has within the time, and whether Ctrl-C ended it."""
    found, raised = list[Wider](), list[BaseException]()

    def work() -> None:
        try:
            found.append(wider(problem, time_limit_s=left_s))
        except BaseException as error:  # it is raised again where the user waits
            raised.append(error)

    thread = threading.Thread(target=work, daemon=True)
    try:
        thread.start()
        while thread.is_alive():
            thread.join(LOOK_S)
    except KeyboardInterrupt:
        return None, True
    if raised:
        raise raised[0]
    return found[0], False


def cheaper(other: Wider | None, cost_ms: float) -> RankedPlan | None:
    """Return the wider space's plan where it is the cheaper one."""
    plan = other.plan if other else None
    return plan if plan is not None and plan.cost_ms < cost_ms * (1 - 1e-9) else None


def figures(other: Wider | None) -> tuple[Figure, ...]:
    """Return what was spent on the wider space."""
    return (Figure("search.wider_time", other.seconds, "s"),) if other else ()
