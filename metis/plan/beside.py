"""The wider space of the whole cluster, asked beside the strict search where that proves nothing.

The strict space leaves group sizes out beyond 32 devices, and its search may be out of time; the
default answer is to be no worse than `--method wider` all the same: beyond 32 devices both have the
whole time, side by side, since either may need all of it.
"""

import threading

from metis.plan.outcome import Figure
from metis.plan.problem import Problem
from metis.plan.search import RankedPlan
from metis.plan.wider import Wider, wider

LOOK_S = 0.05
"""Seconds between two looks at the thread, so that Ctrl-C is heard."""


class Beside:
    """The wider space, in a thread of its own until it is done, stopped, or out of time."""

    def __init__(self, problem: Problem, limit_s: float) -> None:
        """Begin now."""
        self._found, self._raised = list[Wider](), list[BaseException]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(problem, limit_s), daemon=True)
        self._thread.start()

    def _work(self, problem: Problem, limit_s: float) -> None:
        try:
            self._found.append(wider(problem, time_limit_s=limit_s, stop=self._stop))
        except BaseException as error:  # it is raised again where the user waits
            self._raised.append(error)

    def stop(self) -> None:
        """Let it end soon; nobody waits for it."""
        self._stop.set()

    def result(self) -> tuple[Wider | None, bool]:
        """Wait for what it has; None, and that it was interrupted, after Ctrl-C."""
        try:
            while self._thread.is_alive():
                self._thread.join(LOOK_S)
        except KeyboardInterrupt:
            self.stop()
            return None, True
        if self._raised:
            raise self._raised[0]
        return self._found[0], False


def cheaper(other: Wider | None, cost_ms: float) -> RankedPlan | None:
    """Return the wider space's plan where it is the cheaper one."""
    plan = other.plan if other else None
    return plan if plan is not None and plan.cost_ms < cost_ms * (1 - 1e-9) else None


def figures(other: Wider | None) -> tuple[Figure, ...]:
    """Return what was spent on the wider space."""
    return (Figure("search.wider_time", other.seconds, "s"),) if other else ()
