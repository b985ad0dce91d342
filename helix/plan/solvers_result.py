"""What every solver is told and what it answers, and when to stop early."""

import math
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Literal

import msgspec

from common.errors import InputError
from helix.plan.solvers_matrix import Floats

Ended = Literal["optimal", "time", "nodes", "threshold", "near bound", "interrupted", "infeasible"]

MANY = 2**31 - 1  # nodes of a tree that are no limit
TRACED = 1e-3  # relative change of the bound that is worth a point of the trace


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a solver may stop, in seconds and shares of `upper_bound`, and how it is run.

    As in the original: at `max_run_time`; when `threshold` of the upper bound is reached and
    nothing better came for `early_stop_time`; when `close` of the upper bound is reached. And after
    `nodes` of the tree: the same on every machine, which a time is not.
    """

    max_run_time: float = math.inf
    upper_bound: float = math.inf
    threshold: float = 0.95
    early_stop_time: float = 100.0
    close: float = 0.995
    gap: float = 1e-4  # relative, below which an answer counts as proved
    nodes: int = MANY
    seed: int = 0
    threads: int = 1  # Gurobi's; HiGHS runs on one

    def __post_init__(self) -> None:
        """Refuse limits that no run can keep."""
        for field in ("max_run_time", "upper_bound", "early_stop_time"):
            if not getattr(self, field) > 0:
                raise InputError(f"solver: {field} is {getattr(self, field)}, expected above 0")
        for field in ("threshold", "close"):
            if not 0 < getattr(self, field) <= 1:
                raise InputError(f"solver: {field} is {getattr(self, field)}, expected in (0, 1]")
        if not (self.seed >= 0 and min(self.threads, self.nodes) >= 1 and self.gap >= 0):
            raise InputError("solver: seed and gap are 0 or more, threads and nodes 1 or more")


class Point(msgspec.Struct, frozen=True):
    """One point of a solver's progress; `best` is None while nothing is found."""

    seconds: float
    best: float | None
    bound: float | None


class Solved(msgspec.Struct, frozen=True, kw_only=True):
    """A solver's answer; without a solution `x` is None and `objective` is -inf."""

    x: Floats | None
    objective: float
    bound: float
    seconds: float
    ended: Ended
    solver: str  # with its version
    licence: str
    seed: int
    trace: tuple[Point, ...]

    @property
    def gap(self) -> float:
        """Return how far the bound lies above the objective, relative to it."""
        if self.bound <= self.objective:
            return 0.0
        return (self.bound - self.objective) / self.objective if self.objective > 0 else math.inf


def never() -> bool:
    """Say that there is no end from outside."""
    return False


class Watch:
    """Follows a running solver: keeps the trace and says when to stop; `over` is asked, too."""

    def __init__(
        self, settings: Settings, pressed: Callable[[], bool], over: Callable[[], bool] = never
    ) -> None:
        self.settings, self.pressed, self.over = settings, pressed, over
        self.begun = time.perf_counter()
        self.best, self.bound, self.improved = -math.inf, math.inf, 0.0
        self.waited = 0.0  # seconds that `over` took to answer: the solver had to wait its turn
        self.trace: list[Point] = []
        self.ended: Ended | None = None

    def seconds(self) -> float:
        """Return the seconds since the start."""
        return time.perf_counter() - self.begun

    def see(self, best: float, bound: float) -> bool:
        """Take in the solver's state; return whether it has to stop."""
        over = self._over()
        now = self.seconds()
        better = best > self.best
        if better:
            self.best, self.improved = best, now - self.waited
        tighter = bound < self.bound and not bound > self.bound * (1 - TRACED)
        if better or tighter:
            self.bound = min(self.bound, bound)
            self.trace.append(Point(now, _finite(self.best), _finite(self.bound)))
        self.ended = self.ended or self._reason(now, over=over)
        return self.ended is not None

    def _over(self) -> bool:
        asked = self.seconds()
        over = self.over()
        self.waited += self.seconds() - asked
        return over

    def _reason(self, now: float, *, over: bool) -> Ended | None:
        stop = self.settings
        if self.pressed():
            return "interrupted"
        if now >= stop.max_run_time or over:
            return "time"
        if self.best >= stop.close * stop.upper_bound:
            return "near bound"
        idle = now - self.waited - self.improved >= stop.early_stop_time
        return "threshold" if idle and self.best >= stop.threshold * stop.upper_bound else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


@contextmanager
def remembered_interrupt() -> Generator[Callable[[], bool]]:
    """Turn Ctrl-C into an answer to the yielded question, so that what was found is kept.

    Outside the main thread, where no signal arrives, the answer stays no.
    """
    pressed = False

    def remember(_number: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
