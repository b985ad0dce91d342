"""The search that starts from a running plan: first near its shape, then everywhere.

Near a plan are its order of the kinds of nodes, groups of about its stages' sizes, and about its
number of micro-batches; degrees, layer split and recomputation are free. That part of the space is
small enough for many devices at once.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from itertools import groupby, islice

from metis.plan.anytime import Best, Near, Search
from metis.plan.cells import Found
from metis.plan.lines import Run, runs
from metis.plan.problem import Problem

SHARE = 0.4
"""Part of the time that is spent near the plan at most."""

MOST_ORDERS = 4
"""Places of kinds of nodes that came which are tried."""

STEP = 2
"""Nodes that a group near a stage has more or fewer, at most."""

FACTOR = 2
"""By which the number of micro-batches differs at most."""


class Nearby:
    """A search with the same face as `Search`, from a plan on."""

    def __init__(
        self, problem: Problem, start: Found | None, near: Near | None, *, gap: float,
        limit_s: float,
    ) -> None:  # fmt: skip
        """Without a start or a place near it, it is a search from scratch."""
        self.problem, self.start, self.near = problem, start, near
        self.gap, self.limit_s, self.started = gap, limit_s, time.monotonic()
        self.stopped = False
        self.search = Search(problem, gap=gap, start=start, near=near)

    def run(self) -> None:
        """Search until the gap is reached or `stop` is called."""
        if self.near is not None:
            timer = threading.Timer(SHARE * self.limit_s, self.search.stop)
            timer.start()
            self.search.run()
            timer.cancel()
            self.search = Search(self.problem, gap=self.gap, start=self.search.found)
        if not self.stopped:
            self.search.run()

    def stop(self) -> None:
        """Let `run` end soon, from another thread."""
        self.stopped = True
        self.search.stop()

    def best(self) -> Best:
        """Return what is known by now; near the plan nothing is known of all others."""
        best = self.search.best()._replace(seconds=time.monotonic() - self.started)
        return best._replace(lower_bound_ms=0.0, finished=False) if self.search.near else best


def near(problem: Problem, plan: Found, came: Sequence[int]) -> Near | None:
    """Return the place near a plan; `came` are machines that it does not stand on.

    None where it does not take the kinds of nodes one after the other.
    """
    every = runs(problem.cluster)
    run_of = {machine: run for run in every for machine in run.machines}
    taken = [run for run, _ in groupby(run_of[machine] for machine in plan.machines)]
    if len(taken) > len(set(taken)):
        return None
    batches = (b for b in problem.batches() if 1 / FACTOR <= b / plan.plan.batches <= FACTOR)
    more = {run: sum(machine in came for machine in run.machines) for run in every}
    sizes = dict.fromkeys((run.number for run in every), frozenset[int]())
    for run, devices in _parts(plan, problem, run_of):
        sizes[run.number] |= _about(run, devices, more[run])
    for run in every:
        if run not in taken:
            sizes[run.number] = frozenset(n * run.node.devices for n in _counts(run))
    return Near(tuple(islice(_orders(taken, every), MOST_ORDERS)), sizes, frozenset(batches))


def _parts(plan: Found, problem: Problem, run_of: dict[int, Run]) -> Iterator[tuple[Run, int]]:
    """Yield each stage's devices on each run."""
    machines = problem.cluster.machines()
    ranks = [run_of[m] for m in plan.machines for _ in range(machines[m].devices)]
    for option in plan.plan.survivor.options:
        stage = ranks[option.first_rank : option.first_rank + option.devices]
        for run, devices in groupby(stage):
            yield run, len(list(devices))


def _about(run: Run, devices: int, more: int) -> frozenset[int]:
    """Return sizes about a stage's devices on a run, of which `more` nodes came."""
    size = run.node.devices
    if devices < size:
        return frozenset({devices, min(2 * devices, size), max(devices // 2, 1), size})
    count = devices // size
    counts = {count + step for step in range(-STEP, STEP + 1)} | {count + more}
    found = {n * size for n in counts if 1 <= n <= len(run.machines)}
    return frozenset(found | {devices})


def _counts(run: Run) -> set[int]:
    """Return how many nodes of a run that the plan does not use a group may take."""
    count = len(run.machines)
    return {1 << k for k in range(count.bit_length())} | {count}


def _orders(taken: Sequence[Run], every: Sequence[Run]) -> Iterator[tuple[Run, ...]]:
    """Yield orders of all runs in which the plan's own follow each other as they do in it."""
    new = [run for run in every if run not in taken]
    if len(new) > 1:
        yield (*taken, *new)
        return
    for at in range(len(taken) + 1 if new else 1):
        yield (*taken[:at], *new, *taken[at:])
