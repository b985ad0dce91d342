"""A wider space with a lower bound: any contiguous groups, any (dp, tp) per stage, any layer split.

Dynamic program over the cost model for one node sequence and number of micro-batches B: sweep
the slowest stage's limit M downward; below M the least sum of stage times f(M) is exact, so
(B - 1) m + f(M) bounds every plan whose slowest stage is m or more. Update and all-reduce (max
terms) are bounded by splitting the space: plans that finish in [a, b) ms cost at least a more
than the best cover all of whose stages finish below b. Candidates are costed in full, and the
memory of all their in-flight micro-batches is checked.
"""

import threading
import time
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import permutations
from typing import NamedTuple

import numpy as np

from metis.plan.cost import send_ms
from metis.plan.kernel_wider import Cover, Limits, cover
from metis.plan.memory import slacks
from metis.plan.problem import Problem
from metis.plan.search import RankedPlan
from metis.plan.space import Layout
from metis.plan.stages import StageModel, StageOption
from metis.plan.tables import Floats, TableBuilder, Tables
from metis.plan.walk import Survivor, stage_cost


class Wider(NamedTuple):
    """The best plan of the wider space that was met, and the bound below all of them."""

    plan: RankedPlan | None
    lower_bound_ms: float
    """No plan of the wider space is cheaper (inf: nothing fits, 0: not looked at in time)."""
    finished: bool
    parts: int
    """Pieces of the space that were bounded."""
    seconds: float


class _Cell:
    """One node sequence and number of micro-batches: its tables and its sweep."""

    def __init__(self, problem: Problem, sequence: tuple[str, ...], batches: int) -> None:
        self.problem, self.sequence, self.batches = problem, sequence, batches
        self.model = StageModel(problem, problem.ranks(sequence))
        builder = TableBuilder(self.model, [batches])
        sizes, devices = problem.sizes(), problem.devices
        self.slots_at = np.full((devices, len(sizes)), -1, dtype=np.int64)
        for first in range(devices):
            for k, size in enumerate(sizes):
                if first + size <= devices:
                    self.slots_at[first, k] = builder.slot(first, size)
        self.tables: Tables = builder.build_all()
        self.border = self._border_bandwidth()

    def _border_bandwidth(self) -> Floats:
        """Return the fastest possible link across each border of ranks, GB/s."""
        ranks, intra_only = self.model.ranks, self.problem.switches.intra_bandwidth_only
        border = np.zeros(self.problem.devices + 1)
        for r in range(1, self.problem.devices):
            a, b = (ranks.nodes[ranks.ranks[i].node] for i in (r - 1, r))
            intra, inter = (
                min(getattr(a, f), getattr(b, f)) for f in ("intra_bandwidth", "inter_bandwidth")
            )
            same = ranks.ranks[r - 1].node == ranks.ranks[r].node
            border[r] = intra if intra_only else max(intra, inter) if same else inter
        return border

    def cover(
        self, limit: float, below: float, *, maximum: bool = False, whole_flight: bool = False
    ) -> Cover:
        limits = Limits(limit, below, whole_flight)
        return cover(self.tables, self.slots_at, self.border, self.batches, limits, maximum)

    def slowest(self, found: Cover) -> float:
        """Return the pace of the cover's slowest stage or link, ms."""
        t, rank, layer, slowest = self.tables, 0, 0, 0.0
        while rank < self.problem.devices:
            slot, end = found.slot[rank, layer], int(found.end[rank, layer])
            o = t.option_of[slot, found.degree[rank, layer], 0]
            slowest = max(slowest, float(t.ranges[t.time[o], layer, end]))
            rank += int(t.size[slot])
            if rank < self.problem.devices:
                head = end == self.problem.model.layers - 1
                amount = float(t.send_before_head[o] if head else t.send_hidden[o])
                slowest = max(slowest, send_ms(amount, bandwidth=float(self.border[rank])))
            layer = end
        return slowest

    def plan(self, found: Cover) -> RankedPlan | None:
        """Return the cover's plan with its full cost, or None if it does not fit in memory."""
        rank, split, groups, options = 0, [0], list[int](), list[StageOption]()
        while rank < self.problem.devices:
            state = rank, split[-1]
            size = int(self.tables.size[found.slot[state]])
            tp = 1 << int(found.degree[state])
            option = self.model.option(rank, size, size // tp, tp, self.batches)
            assert option is not None, "the tables hold valid options only"
            options.append(option)
            groups.append(size)
            split.append(int(found.end[state]))
            rank += size
        if not all(o.costable for o in options) or min(slacks(options, split, self.batches)) < 0:
            return None
        survivor = Survivor(
            tuple((o.dp, o.tp) for o in options),
            tuple(split),
            1,
            0,
            stage_cost(options, split, self.problem, self.batches),
            tuple(options),
        )
        return RankedPlan(Layout(self.sequence, tuple(groups)), self.batches, survivor, self.model)


class _Part(NamedTuple):
    """The plans of a cell whose slowest all-reduce + update lies in [finish, below) ms."""

    bound: float
    number: int
    cell: _Cell
    finish: float
    below: float
    pace: float
    """Bound of all other terms under the limit `below`."""


class _Sweeps:
    def __init__(self, problem: Problem, time_limit_s: float | None, stop: threading.Event) -> None:
        self.problem, self.stop = problem, stop
        self.started = time.monotonic()
        self.deadline = None if time_limit_s is None else self.started + time_limit_s
        self.best: RankedPlan | None = None
        self.count = 0
        self.parts: list[_Part] = []
        self.closed = float("inf")

    def late(self) -> bool:
        over = self.deadline is not None and time.monotonic() > self.deadline
        return over or self.stop.is_set()

    def best_cost(self) -> float:
        return self.best.cost_ms if self.best else float("inf")

    def least(self) -> float:
        """Return what bounds are compared with: the best plan or a closed part below it."""
        return min(self.best_cost(), self.closed)

    def add(self, cell: _Cell, finish: float, below: float, pace: float) -> None:
        """Keep a part if a better plan could be in it."""
        if finish + pace < self.best_cost():
            heappush(self.parts, _Part(finish + pace, self.count, cell, finish, below, pace))
            self.count += 1

    def open(self, cell: _Cell, finish: float, below: float) -> None:
        self.add(cell, finish, below, self.sweep(cell, finish, below))

    def halve(self, part: _Part, narrow: float) -> None:
        """Split a part in two, above at the best plan's own finish; one too narrow is closed."""
        if part.below - part.finish < narrow:
            self.closed = min(self.closed, part.bound)
            return
        top = part.below
        if not np.isfinite(top):
            terms = self.best.survivor.terms if self.best else None
            typical = terms.allreduce + terms.update if terms else 1.0
            top = 2 * max(typical, part.finish)
        middle = (part.finish + top) / 2
        self.add(part.cell, middle, part.below, part.pace)
        self.open(part.cell, part.finish, middle)

    def try_plan(self, cell: _Cell, found: Cover) -> None:
        if not np.isfinite(found.value[0, 0]):
            return
        plan = cell.plan(found)
        if plan is not None and plan.cost_ms < self.best_cost():
            self.best = plan

    def sweep(self, cell: _Cell, finish: float, below: float) -> float:
        """Return a bound below (B - 1) slowest + sum of times of the cell's plans, limit kept."""
        least = float(cell.cover(np.inf, below, maximum=True).value[0, 0])
        limit, bound = float("inf"), float("inf")
        while True:
            found = cell.cover(limit, below)
            total = float(found.value[0, 0])
            if not np.isfinite(total):
                return bound
            remaining = (cell.batches - 1) * least + total
            if self.late() or remaining >= min(bound, self.best_cost() - finish):
                return min(bound, remaining)
            slowest = cell.slowest(found)
            bound = min(bound, (cell.batches - 1) * slowest + total)
            self.try_plan(cell, found)
            self.try_plan(cell, cell.cover(limit, below, whole_flight=True))
            limit = slowest


def wider(
    problem: Problem,
    *,
    time_limit_s: float | None = None,
    tolerance: float = 1e-3,
    advance: Callable[[int], object] = lambda _: None,
    stop: threading.Event | None = None,
) -> Wider:
    """Return the best plan met in the wider space and a bound below all of its plans.

    Group sizes are those of the search, without a lower limit; every stage holds a layer. Goes
    on until the relative gap is at most `tolerance`, or the time is over or `stop` is set (then the
    bound is what is proven so far).
    """
    state = _Sweeps(problem, time_limit_s, stop or threading.Event())
    for batches in sorted(problem.batches()):
        for sequence in permutations(problem.node_types):
            if state.late():
                return _answer(state, 0.0, False)
            state.open(_Cell(problem, sequence, batches), 0.0, np.inf)
            advance(1)
    while state.parts and state.parts[0].bound < state.least() * (1 - tolerance):
        if state.late():
            return _answer(state, state.parts[0].bound, False)
        state.halve(heappop(state.parts), tolerance * state.best_cost())
        advance(1)
    return _answer(state, state.parts[0].bound if state.parts else float("inf"), True)


def _answer(state: _Sweeps, bound: float, finished: bool) -> Wider:
    return Wider(
        plan=state.best,
        lower_bound_ms=min(bound, state.least()),
        finished=finished,
        parts=state.count,
        seconds=time.monotonic() - state.started,
    )
