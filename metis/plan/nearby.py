"""The search that looks at a likely part of the space first, and then everywhere.

From scratch that part has groups of few sizes: 2^k, 3 x 2^k or all nodes of a kind, and powers of
two inside a node. From a running plan it is what is near it: its order of the kinds of nodes,
groups of about its stages' sizes, and about its number of micro-batches. Degrees, layer split and
recomputation are free in either. Such a part is small enough for hundreds of devices at once, where
the whole space takes minutes to look through, and its best plan lets most of that be passed over.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from math import inf

from metis.plan.anytime import Best, Near, Search
from metis.plan.cells import Found
from metis.plan.floor import Floor
from metis.plan.lines import Run, Sizes, orders, runs
from metis.plan.problem import Problem
from metis.plan.starts import uniform_starts

SHARE = 0.4
"""Part of the time that is spent in the likely part at most."""

GAP = 0.01
"""Relative distance from that part's bound at which it is left."""

FEW = 128
"""Devices up to which everything is looked through at once: there bounds come soon enough."""

MOST_ORDERS = 4
"""Places of kinds of nodes that came which are tried."""

STEP = 2
"""Nodes that a group near a stage has more or fewer, at most."""

FACTOR = 2
"""By which the number of micro-batches differs at most."""


class Staged:
    """A search with the same face as `Search`, in two stages."""

    def __init__(
        self, problem: Problem, near: Near | None, *, start: Found | None = None,
        gap: float = 0.0, limit_s: float = inf,
    ) -> None:  # fmt: skip
        """Without a likely part it is `Search`, from the start if there is one."""
        self.problem, self.near = problem, near
        self.gap, self.limit_s, self.started = gap, limit_s, time.monotonic()
        self.stopped, self.floor_ms = False, 0.0
        self.search = Search(problem, gap=max(gap, GAP) if near else gap, start=start, near=near)

    def run(self) -> None:
        """Search until the gap is reached or `stop` is called."""
        if self.near is not None:
            self._first(self.search)
            first = self.search
            self.search = Search(self.problem, gap=self.gap, start=first.found, models=first.models)
        if not self.stopped:
            self.search.run()

    def _first(self, search: Search) -> None:
        """Search in the likely part, from the best with equal stages where there is no start."""
        timer = threading.Timer(min(SHARE * self.limit_s, threading.TIMEOUT_MAX), search.stop)
        timer.daemon = True
        timer.start()
        floor = Floor(self.problem)
        least = min(floor.cost(batches) for batches in self.problem.batches())
        self.floor_ms = least if least < inf else 0.0
        for found in () if search.found else uniform_starts(self.problem):
            search.offer(found)
        search.run()
        timer.cancel()

    def stop(self) -> None:
        """Let `run` end soon, from another thread."""
        self.stopped = True
        self.search.stop()

    def best(self) -> Best:
        """Return what is known by now; in the likely part, the floor of the whole space."""
        best = self.search.best()._replace(seconds=time.monotonic() - self.started)
        if self.search.near is None:
            return best
        return best._replace(lower_bound_ms=self.floor_ms, finished=False)


def coarse(problem: Problem) -> Near | None:
    """Return the likely part of a problem from scratch; None where all of it is small."""
    if problem.devices <= FEW:
        return None
    every = runs(problem.cluster)
    alone = {run.number: frozenset(_few(run)) for run in every}
    joined = {run.number: frozenset(n * run.node.devices for n in _counts(run)) for run in every}
    return Near(tuple(orders(every)), Sizes(alone, joined), frozenset(problem.batches()))


def _few(run: Run) -> Iterator[int]:
    """Yield the sizes of groups on a run that are tried first."""
    count, size = len(run.machines), run.node.devices
    yield from (1 << k for k in range(size.bit_length()))
    for power in (1 << k for k in range(count.bit_length())):
        yield from (c * size for c in (power, 3 * power) if c <= count)
    yield count * size


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
    alone = {run.number: frozenset[int]() for run in every}
    joined = {run.number: frozenset({run.node.devices}) for run in every}
    for parts in _stages(plan, problem, run_of):
        for run, devices in parts:
            alone[run.number] |= _about(run, devices, more[run])
            if len(parts) > 1 and devices % run.node.devices == 0:
                joined[run.number] |= {devices}
    for run in every:
        if run not in taken:
            alone[run.number] = frozenset(n * run.node.devices for n in _counts(run))
    places = tuple(islice(_orders(taken, every), MOST_ORDERS))
    return Near(places, Sizes(alone, joined), frozenset(batches))


def _stages(
    plan: Found, problem: Problem, run_of: dict[int, Run]
) -> Iterator[list[tuple[Run, int]]]:
    """Yield each stage's devices on each of its runs."""
    machines = problem.cluster.machines()
    ranks = [run_of[m] for m in plan.machines for _ in range(machines[m].devices)]
    for option in plan.plan.survivor.options:
        stage = ranks[option.first_rank : option.first_rank + option.devices]
        yield [(run, len(list(devices))) for run, devices in groupby(stage)]


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
    """Return few counts of nodes of a run: powers of two, and all."""
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
