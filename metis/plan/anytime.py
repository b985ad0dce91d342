"""The strict search: any nodes, any groups, any degrees, any layer split; best first, any time.

cost = (B - 1) max pace + sum of times + max update + max all-reduce. A part is the plans of a cell
whose largest pace, update and all-reduce lie in [low, high). The dynamic program gives the least
sum of times below `high`; that sum and the three lows bound the part, and the way that has it is a
plan. Where the plan's own maxima lie above the lows, the part is cut there. Parts are taken least
bound first, so that the first one's bound holds for all plans at any moment.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from heapq import heappop, heappush
from math import log
from typing import NamedTuple

import numpy as np

from metis.plan.catalogue import Catalogue, Models, TimeOver
from metis.plan.cells import ROUGH, Answered, Cell, Found, Grain, Setting
from metis.plan.floor import Floor
from metis.plan.kernel_line import PACE, Limits
from metis.plan.lines import Run, Sizes, orders
from metis.plan.problem import Problem
from metis.plan.starts import uniform_starts
from metis.plan.tables import Floats

CLOSE = 1e-9
"""Relative difference that rounding makes."""

NARROW = 2e-3
"""Cuts that matter less, relatively, are made at the plan's own maximum, others in the middle."""


NEAR = 1.05
"""Of a cell's least pace: where its plans are cut first, as the best ones are mostly near it."""


SCOUTED = 16
"""Nodes of a run on which a first plan is looked for."""


class Near(NamedTuple):
    """A part of the space that is searched alone, as good plans are likely there."""

    orders: tuple[tuple[Run, ...], ...]
    sizes: Sizes
    batches: frozenset[int]


class Best(NamedTuple):
    """The best plan so far and what is known about it."""

    found: Found | None
    lower_bound_ms: float
    """No plan of the space is cheaper; infinite where there is none, 0 where nothing is known."""
    parts: int
    """Pieces of the space that were bounded."""
    finished: bool
    """The plan is within the gap of the bound, or nothing fits."""
    seconds: float


class _Part(NamedTuple):
    bound: float
    number: int
    cell: Cell
    low: Floats
    high: Floats
    grain: Grain
    answered: Answered
    finer: Grain | None = None
    """The grain to look with next, as the way found is no plan or a dearer one."""


def _sum(part: _Part) -> float:
    """Return the least sum of times and the lows: what no plan of the part is below, ms."""
    return part.answered.total + float(part.cell.weights @ part.low)


UNASKED = Answered(0.0, np.zeros(3), np.zeros((0, 5), dtype=np.int64))


class Search:
    """A search that can be asked for its best plan while it goes on in another thread."""

    def __init__(
        self, problem: Problem, *, gap: float = 0.0, below: float = float("inf"),
        start: Found | None = None, near: Near | None = None, models: Models | None = None,
    ) -> None:  # fmt: skip
        """Look for plans that cost less than `below`, ms, or than a plan to start from.

        Where only a part of the space is asked for (`near`), the bound is of that. `models` are
        those of another search of the problem, whose tables are used again.
        """
        self.problem, self.margin, self.below = problem, max(gap, CLOSE), below
        self.near, self.models = near, models or Models(problem)
        self.started = time.monotonic()
        self.stopped = np.zeros(1, dtype=np.int64)
        """Not 0 once the search is to end; compiled code looks at it too."""
        self.found = start
        self.heap = list[_Part]()
        self.floors = dict[int, float]()
        """What no plan is below, by the numbers of micro-batches that are not looked into yet."""
        self.parts = 0
        self.lower = 0.0
        self.met = float("inf")
        """Least bound of the parts that cannot be cut further."""
        self.finished = False

    def best(self) -> Best:
        """Return what is known by now."""
        seconds = time.monotonic() - self.started
        return Best(self.found, min(self.lower, self.cost()), self.parts, self.finished, seconds)

    def cost(self) -> float:
        """Return what a better plan has to be below: the best one's cost where there is one."""
        return self.found.cost_ms if self.found else self.below

    def offer(self, found: Found | None) -> None:
        """Keep a plan if it is the best."""
        if found is not None and found.cost_ms < self.cost():
            self.found = found

    def stop(self) -> None:
        """Let `run` end soon, from another thread."""
        self.stopped[0] = 1

    def late(self) -> bool:
        """Say whether to stop."""
        return bool(self.stopped[0])

    def run(self) -> None:
        """Search until the gap is reached or `stop` is called."""
        with suppress(TimeOver):
            floor = Floor(self.problem)
            if floor.memory_suffices():
                near = {batches: floor.cost(batches) for batches in self._near()}
                self.floors = {b: cost for b, cost in near.items() if np.isfinite(cost)}
            self._scout()
            for found in uniform_starts(self.problem) if self.floors and not self.near else ():
                self.offer(found)
            self._open()
            while self.heap and self.heap[0].bound < self.cost() * (1 - self.margin):
                self.lower = min(self.heap[0].bound, self.met)
                self._cut(heappop(self.heap))
            self.lower = min(self.heap[0].bound if self.heap else float("inf"), self.met)
            self.finished = self.lower >= self.cost() * (1 - self.margin)

    def _near(self) -> list[int]:
        """Return the numbers of micro-batches, those first that are most often the best."""
        middle = self.found.plan.batches if self.found else self.problem.model.global_batch**0.5
        asked = [b for b in self.problem.batches() if not self.near or b in self.near.batches]
        return sorted(asked, key=lambda batches: abs(log(batches / middle)))

    def _scout(self) -> None:
        """Look for a first plan where one is soon found: on some nodes of one run."""
        if self.found or self.near:
            return
        some = [run._replace(machines=run.machines[:SCOUTED]) for run in self.models.runs]
        largest = sorted(some, key=lambda run: -run.devices)
        for batches in self.floors:
            for make in self._make(batches, [(run,) for run in largest]):
                self._fastest(make(), np.full(3, np.inf))
            if self.found is not None:
                return

    def _open(self) -> None:
        """Bound every cell that a better plan may be in."""
        while self.floors:
            self.lower = min([*self.floors.values(), *(part.bound for part in self.heap[:1])])
            batches, floor = next(iter(self.floors.items()))
            if floor < self.cost():
                lines = self.near.orders if self.near else list(orders(self.models.runs))
                for make in self._make(batches, lines):
                    self._open_cell(make(), floor)
            del self.floors[batches]

    def _make(self, batches: int, lines: Sequence[tuple[Run, ...]]) -> list[Callable[[], Cell]]:
        only = self.near.sizes if self.near else None
        catalogue = Catalogue(self.models, batches, self.late, only)
        laid = [catalogue.line(order) for order in lines]
        if not catalogue.shapes:
            return []
        tables = catalogue.build()
        memory = catalogue.memory(tables)
        setting = Setting(self.problem, self.models, catalogue, tables, memory, self.stopped)
        return [partial(Cell, setting, line) for line in laid]

    def _fastest(self, cell: Cell, high: Floats) -> float:
        """Return the least pace of a cell's slowest stage; keep the plan that has it."""
        limits = Limits(*high.tolist())
        answered = cell.ask(limits, ROUGH, PACE)
        if np.isfinite(answered.total):
            self._try(cell, limits, answered)
        return answered.total

    def _try(self, cell: Cell, limits: Limits, answered: Answered) -> Found | None:
        """Keep a way as a plan if it is one and the best, or else one that surely fits."""
        found = cell.plan(answered.rows)
        self.offer(found)
        if found is None:
            fits = cell.ask(limits, ROUGH, whole=True)
            self.offer(cell.plan(fits.rows) if np.isfinite(fits.total) else None)
        return found

    def _open_cell(self, cell: Cell, bound: float) -> None:
        """Bound a cell and put it on the heap, cut where its best plans are likely."""
        # A plan of cost C takes at least B times its slowest stage, so that stage at most C / B.
        high = np.array([self.cost() / cell.batches * (1 + CLOSE), np.inf, np.inf])
        pace = self._fastest(cell, high)
        low = np.array([pace, 0.0, 0.0])
        if not np.isfinite(pace):
            return
        part = self._ask(_Part(bound, 0, cell, low, high, ROUGH, UNASKED))
        if part is not None:
            self._cut_at(part, 0, pace * NEAR)

    def _ask(self, part: _Part) -> _Part | None:
        """Ask the part's cell, keep the plan that comes of it; None where no better one can be."""
        limits = Limits(*part.high.tolist())
        answered = part.cell.ask(limits, part.grain)
        if not np.isfinite(answered.total):
            return None
        part, found = part._replace(answered=answered, finer=None), None
        if part.grain.exact:
            self.offer(part.cell.plan(answered.rows))
            return self._bounded(part)
        found = self._try(part.cell, limits, answered)
        value = answered.total + float(part.cell.weights @ answered.most)
        if found is None or found.cost_ms > value * (1 + CLOSE):
            part = part._replace(finer=part.cell.finer(part.grain))
        return self._bounded(part)

    def _bounded(self, part: _Part) -> _Part | None:
        """Return the part with its bound; None where no better plan can be in it."""
        bound = max(_sum(part), part.bound)
        return part._replace(bound=bound) if bound < self.cost() * (1 - CLOSE) else None

    def _keep(self, part: _Part | None) -> None:
        """Put a part on the heap."""
        if part is not None:
            self.parts += 1
            heappush(self.heap, part._replace(number=self.parts))

    def _cut(self, part: _Part) -> None:
        """Look closer at a part, or cut it where its way's maxima lie most above its lows."""
        if part.finer:
            self._keep(self._ask(part._replace(grain=part.finer)))
            return
        part = part._replace(high=self._useful(part))
        slack = part.cell.weights * (part.answered.most - part.low)
        i = int(np.argmax(slack))
        if slack[i] <= CLOSE * part.bound:
            self.met = min(self.met, part.bound)
            return
        at = float(part.answered.most[i])
        if slack[i] > NARROW * part.bound:
            at = (at + float(part.low[i])) / 2
        self._cut_at(part, i, min(at, float(part.high[i])))

    def _useful(self, part: _Part) -> Floats:
        """Return the highs above which each maximum alone would make a plan too dear."""
        spare = (self.cost() - _sum(part)) / np.maximum(part.cell.weights, CLOSE)
        return np.minimum(part.high, part.low + spare * (1 + CLOSE) + CLOSE)

    def _cut_at(self, part: _Part, i: int, at: float) -> None:
        """Cut a part in two at a value of pace (0), update (1) or all-reduce (2), ms."""
        above, below = part.low.copy(), part.high.copy()
        above[i] = below[i] = at
        self._keep(self._bounded(part._replace(low=above)))
        self._keep(self._ask(part._replace(high=below)))
