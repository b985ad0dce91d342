"""The best plan of the whole layout space with a proof, by branch and bound.

A cell is a node sequence, a number of stages and of micro-batches. Cells are searched in rounds,
best bound first; inside a cell layouts are built from the front and dropped as soon as their
bound exceeds the best plan so far or memory cannot hold all blocks. What is left is walked by
both policies. The answer equals full enumeration over plans that hold every layer, leave no stage
empty and are costed whole (`tests/metis`).
"""

import time
from collections.abc import Callable
from itertools import permutations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metis.plan.kernel import walk_layouts
from metis.plan.kernel_bound import (
    SLACK,
    Completions,
    StageBounds,
    completions,
    promising_layouts,
    root_bound,
    slot_rooms,
)
from metis.plan.problem import POLICIES, Policy, Problem
from metis.plan.search import RankedPlan, SearchResult, rules_of, search
from metis.plan.space import Groups, Layout, multiset_permutations, smallest_group
from metis.plan.stages import StageModel
from metis.plan.tables import TableBuilder, Tables, ints

FIRST_BUFFER, LARGEST_BUFFER = 16, 4096
"""Layouts walked per cell and round: few at first, so that a good plan soon tightens the limit."""

MANY_LAYOUTS = 20_000
"""Layouts walked without a proof after which a bound from outside is asked for."""

TIES_LOOKED_AT = 200_000
"""Orderings listed to find which of several equal plans comes first."""


class Optimum(NamedTuple):
    """The best plan and what is known about it."""

    plan: RankedPlan | None
    policy: Policy
    lower_bound_ms: float
    """No plan of the space is cheaper; equals the plan's cost once `proven`."""
    proven: bool
    layouts_walked: int
    cells: int
    """(node sequence, stages, micro-batches) combinations that have layouts."""
    cells_opened: int
    seconds: float


class _Cell(NamedTuple):
    bound: float
    sequence: int
    stages: int
    batch: int


class _Open(NamedTuple):
    """A cell that is being searched."""

    cell: _Cell
    rest: Completions
    cursor: NDArray[np.int64]
    """Where the search goes on; its last entry is -1 when it has ended."""


class _Candidate(NamedTuple):
    cost: float
    sequence: int
    groups: Groups
    batch: int
    ordinal: int
    policy: Policy


class _Sequence:
    """One node sequence: its stages as tables and their bounds per number of micro-batches."""

    def __init__(self, problem: Problem, node_sequence: tuple[str, ...]) -> None:
        self.problem, self.node_sequence = problem, node_sequence
        self.sizes = ints(problem.sizes())
        self.allowed = [self._allowed(stages) for stages in range(problem.max_stages + 1)]
        model = StageModel(problem, problem.ranks(node_sequence))
        builder = TableBuilder(model, problem.batches())
        self.slot = np.full((problem.devices, len(self.sizes)), -1, dtype=np.int64)
        for first, k in self._reachable():
            self.slot[first, k] = builder.slot(first, int(self.sizes[k]))
        self.tables: Tables = builder.build_all()
        self.bounds = [self._bounds(b) for b in range(len(self.tables.batches))]

    def _allowed(self, stages: int) -> NDArray[np.int64]:
        if stages == 0:
            return ints(())
        lower = smallest_group(self.problem.devices, stages, self.problem.group_variance)
        return ints(k for k, size in enumerate(self.sizes) if size >= lower)

    def _reachable(self) -> list[tuple[int, int]]:
        """Return the (first rank, size index) pairs that some layout has."""
        devices, pairs = self.problem.devices, set[tuple[int, int]]()
        for stages in range(1, self.problem.max_stages + 1):
            sizes = [(int(k), int(self.sizes[k])) for k in self.allowed[stages]]
            before = [{0}]
            for _ in range(stages):
                before.append({r + g for r in before[-1] for _, g in sizes if r + g <= devices})
            if devices not in before[stages]:
                continue
            after = {devices}
            for depth in range(stages - 1, -1, -1):
                here = [(r, k) for r in before[depth] for k, g in sizes if r + g in after]
                pairs.update(here)
                after = {r for r, _ in here}
        return sorted(pairs)

    def _bounds(self, b: int) -> StageBounds:
        """Return the least values over the strategies of every stage."""
        t, batches = self.tables, int(self.tables.batches[b])
        if len(t.performance) == 0:
            return _no_stages(self.problem.devices, len(self.sizes))
        blocks = ints(range(1, t.ranges.shape[1] - 2))
        layer = t.ranges.shape[1] - 1
        block_ms = t.ranges[:, blocks, blocks + 1].min(axis=1)
        options = t.option_of[:, :, b]
        valid = options >= 0
        time_of = t.time[options]
        block = np.where(valid, block_ms[time_of], np.inf).min(axis=1)
        fixed = batches * t.batch_generator[options]
        first = np.where(valid, t.ranges[time_of, 0, 1] + fixed, np.inf).min(axis=1)
        ending = t.ranges[time_of, layer - 1, layer] + batches * t.sync[options]
        last = np.where(valid, ending, np.inf).min(axis=1)
        there = self.slot >= 0
        flights = min(batches, self.problem.max_stages)
        room = slot_rooms(t, b, flights)[self.slot]
        there &= room[:, :, 0] >= 0
        return StageBounds(
            np.where(there, 1.0 / block[self.slot], 0.0),
            np.where(there, first[self.slot], np.inf),
            np.where(there, last[self.slot], np.inf),
            np.where(there[:, :, None], room, -np.inf),
        )

    def completions(self, stages: int, b: int) -> Completions:
        """Return the best completions with up to `stages` stages."""
        return completions(self.bounds[b], self.sizes, self.allowed[stages], stages)

    def groups(self, row: NDArray[np.int64]) -> Groups:
        """Return the group sizes of a row of size indices."""
        return tuple(int(size) for size in self.sizes[row])


def _no_stages(devices: int, sizes: int) -> StageBounds:
    """Return the bounds of a cluster on which no strategy is valid anywhere."""
    nothing, never = np.zeros((devices, sizes)), np.full((devices, sizes), np.inf)
    return StageBounds(nothing, never, never, np.full((devices, sizes, 1), -np.inf))


class _Search:
    def __init__(self, problem: Problem, time_limit_s: float | None) -> None:
        self.problem = problem
        self.started = time.monotonic()
        self.deadline = None if time_limit_s is None else self.started + time_limit_s
        self.sequences = [_Sequence(problem, s) for s in permutations(problem.node_types)]
        self.rules = {policy: rules_of(problem, policy) for policy in POLICIES}
        self.best: list[_Candidate] = []
        self.limit = float("inf")
        self.walked = 0

    def cells(self) -> list[_Cell]:
        """Return all cells that have layouts, best bound first."""
        blocks, cells = self.problem.model.layers - 2, list[_Cell]()
        for number, sequence in enumerate(self.sequences):
            # The original never visits one-stage layouts of later node sequences.
            fewest = 2 if self.problem.switches.phantom_pass and number else 1
            for stages in range(fewest, self.problem.max_stages + 1):
                for b, batches in enumerate(self.problem.batches()):
                    rest = sequence.completions(stages, b)
                    bound = root_bound(
                        sequence.bounds[b],
                        rest,
                        sequence.sizes,
                        sequence.allowed[stages],
                        stages,
                        blocks,
                        batches,
                    )
                    if bound < float("inf"):
                        cells.append(_Cell(bound, number, stages, b))
        return sorted(cells)

    def out_of_time(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    def look(self, opened: _Open, count: int) -> None:
        """Walk up to `count` more promising layouts of a cell."""
        cell = opened.cell
        sequence, stages, b = self.sequences[cell.sequence], cell.stages, cell.batch
        found = np.zeros((count, stages), dtype=np.int64)
        written = promising_layouts(
            sequence.bounds[b],
            opened.rest,
            sequence.sizes,
            sequence.allowed[stages],
            stages,
            self.problem.model.layers - 2,
            self.problem.batches()[b],
            self.limit,
            opened.cursor,
            found,
        )
        if written:
            self._walk(cell, found[:written])

    def open(self, cell: _Cell) -> _Open:
        """Return a cell with its search at the beginning."""
        rest = self.sequences[cell.sequence].completions(cell.stages, cell.batch)
        return _Open(cell, rest, np.zeros(cell.stages + 1, dtype=np.int64))

    def _walk(self, cell: _Cell, rows: NDArray[np.int64]) -> None:
        sequence, count = self.sequences[cell.sequence], len(rows)
        ends = np.cumsum(sequence.sizes[rows], axis=1)
        firsts = np.concatenate([np.zeros((count, 1), np.int64), ends[:, :-1]], axis=1)
        slots = sequence.slot[firsts, rows].ravel()
        starts = np.arange(count + 1, dtype=np.int64) * cell.stages
        self.walked += count
        for policy in POLICIES:
            found = walk_layouts(
                sequence.tables,
                self.rules[policy],
                starts,
                slots,
                np.zeros(count, np.int64),
                (0, count),
                (cell.batch, cell.batch + 1),
            )
            whole = (found.end_layer == self.problem.model.layers) & (found.empty == 0)
            for index in np.flatnonzero(whole & (found.cost <= self.limit)):
                groups = sequence.groups(rows[found.layout[index]])
                self._keep(
                    _Candidate(
                        float(found.cost[index]),
                        cell.sequence,
                        groups,
                        cell.batch,
                        int(found.ordinal[index]),
                        policy,
                    )
                )

    def _keep(self, candidate: _Candidate) -> None:
        if candidate.cost < self.limit:
            self.limit, self.best = candidate.cost, []
        if candidate.cost == self.limit:
            self.best.append(candidate)

    def first_of_equals(self) -> _Candidate | None:
        """Return the candidate that full enumeration meets first."""
        if not self.best:
            return None

        def cell(c: _Candidate) -> tuple[int, int, Groups]:
            return c.sequence, len(c.groups), tuple(sorted(c.groups))

        first = min(cell(c) for c in self.best)
        equals = [c for c in self.best if cell(c) == first]
        groups = _first_ordering({c.groups for c in equals})
        return min(
            (c for c in equals if c.groups == groups),
            key=lambda c: (c.batch, POLICIES.index(c.policy), c.ordinal),
        )


def _first_ordering(orderings: set[Groups]) -> Groups:
    """Return the ordering that comes first in the enumeration of their multiset."""
    if len(orderings) == 1:
        return next(iter(orderings))
    units = [(size,) for size in next(iter(orderings))]
    for _, arrangement in zip(range(TIES_LOOKED_AT), multiset_permutations(units), strict=False):
        groups = tuple(size for unit in arrangement for size in unit)
        if groups in orderings:
            return groups
    return min(orderings)


def optimal(
    problem: Problem,
    *,
    time_limit_s: float | None = None,
    outer_bound: Callable[[], float] = lambda: 0.0,
    gap: float = 0.0,
    advance: Callable[[int], object] = lambda _: None,
) -> Optimum:
    """Return the cheapest plan over all layouts and both policies, with a proof.

    `max_permute_len` does not limit this space: every ordering counts. `outer_bound` is asked
    once, if many layouts have proven nothing, for a bound on a space that contains this one; the
    search ends when the plan is within the relative `gap` of it. Otherwise, with a time limit,
    the answer may be unproven; `lower_bound_ms` says how far from the best it can be at most.
    """
    state = _Search(problem, time_limit_s)
    cells = state.cells()
    waiting, opened, buffer = [state.open(cell) for cell in cells], set[_Cell](), FIRST_BUFFER
    outer = 0.0
    while waiting and not state.out_of_time():
        if state.walked > MANY_LAYOUTS and outer == 0.0:
            outer = outer_bound()
        if state.limit * (1 - gap) <= outer:
            break
        left: list[_Open] = []
        for place, item in enumerate(waiting):
            if item.cell.bound > state.limit * SLACK:
                break
            if state.out_of_time():
                left += waiting[place:]
                break
            opened.add(item.cell)
            state.look(item, buffer)
            advance(1)
            if item.cursor[-1] >= 0:
                left.append(item)
        waiting, buffer = left, min(4 * buffer, LARGEST_BUFFER)
    unsearched = [i.cell.bound for i in waiting if i.cell.bound <= state.limit * SLACK]
    bound, proven = max(min(unsearched, default=float("inf")), outer), not unsearched
    winner = state.first_of_equals()
    plan = _rebuild(problem, state, winner) if winner else None
    return Optimum(
        plan=plan,
        policy=winner.policy if winner else "metis",
        lower_bound_ms=state.limit if proven else min(bound, state.limit),
        proven=proven,
        layouts_walked=state.walked,
        cells=len(cells),
        cells_opened=len(opened),
        seconds=time.monotonic() - state.started,
    )


def _rebuild(problem: Problem, state: _Search, winner: _Candidate) -> RankedPlan:
    layout = Layout(state.sequences[winner.sequence].node_sequence, winner.groups)
    result: SearchResult = search(problem, winner.policy, engine="readable", layouts=[layout])
    for index in range(len(result.plans.cost)):
        same = (result.plans.batch[index], result.plans.ordinal[index])
        if same == (winner.batch, winner.ordinal):
            return result.plan(index)
    raise AssertionError("the readable engine lost the best plan")
