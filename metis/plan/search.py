"""Search all layouts under one policy: the two engines, the totals, the ranking."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metis.plan.lookups import MissingProfile, stopped
from metis.plan.problem import Policy, Problem
from metis.plan.rules import Rules
from metis.plan.space import Layout
from metis.plan.stages import StageModel
from metis.plan.walk import Chain, Survivor

Engine = Literal["compiled", "readable"]

CHUNK = 256
"""Layouts walked between two progress reports of one thread."""


class FoundPlans(NamedTuple):
    """Every plan that fits and can be costed, in enumeration order, as columns."""

    cost: NDArray[np.float64]
    """Milliseconds per iteration."""
    layout: NDArray[np.int64]
    batch: NDArray[np.int64]
    """Index into the descending micro-batch counts."""
    ordinal: NDArray[np.int64]
    """Number of the survivor inside its chain."""
    attempts: NDArray[np.int64]
    """Layer splits it took to fit."""
    end_layer: NDArray[np.int64]
    empty: NDArray[np.int64]
    """Number of empty stages."""


class RankedPlan(NamedTuple):
    """One plan with the layout and the chain it comes from."""

    layout: Layout
    batches: int
    survivor: Survivor
    model: StageModel

    @property
    def cost_ms(self) -> float:
        """Milliseconds per iteration."""
        assert self.survivor.terms is not None
        return self.survivor.terms.total


class SearchResult(NamedTuple):
    """What a search found and how much work it was."""

    problem: Problem
    policy: Policy
    layouts: list[Layout]
    plans: FoundPlans
    steps: int
    """Strategy moves + failed memory checks of segments that ended in a plan ("search step")."""
    uncostable: int
    """Plans dropped because the original's estimator meets a missing profile."""

    @property
    def phantom(self) -> NDArray[np.bool_]:
        """Mask of the plans that are costed on their first stage only."""
        flags = np.array([layout.phantom for layout in self.layouts], dtype=np.bool_)
        return flags[self.plans.layout]

    @property
    def lossy(self) -> NDArray[np.bool_]:
        """Mask of the plans that lost layers."""
        return self.plans.end_layer < self.problem.model.layers

    @property
    def consistent(self) -> NDArray[np.bool_]:
        """Mask of the plans that hold every layer and are costed whole."""
        return ~self.phantom & ~self.lossy

    def ranking(self, keep: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """Return plan indices by cost; ties keep enumeration order."""
        order = np.argsort(self.plans.cost, kind="stable")
        return order if keep is None else order[keep[order]]

    def plan(self, index: int) -> RankedPlan:
        """Walk the plan's chain again and return it with its cost terms."""
        layout: Layout = self.layouts[int(self.plans.layout[index])]
        batches = self.problem.batches()[int(self.plans.batch[index])]
        model = StageModel(self.problem, self.problem.ranks(layout.node_sequence))
        chain = Chain(model, layout.groups, batches, phantom=layout.phantom)
        for ordinal, survivor in enumerate(chain.survivors(self.policy)):
            if ordinal == self.plans.ordinal[index]:
                return RankedPlan(layout, batches, survivor, model)
        raise AssertionError("the readable engine lost a plan that the compiled one found")

    def best(self, keep: NDArray[np.bool_] | None = None) -> RankedPlan | None:
        """Return the cheapest plan (of those kept), or None."""
        order = self.ranking(keep)
        return self.plan(int(order[0])) if len(order) else None


def search(
    problem: Problem,
    policy: Policy,
    *,
    engine: Engine = "compiled",
    workers: int | None = None,
    layouts: Sequence[Layout] | None = None,
    advance: Callable[[int], object] = lambda _: None,
) -> SearchResult:
    """Walk every layout (or the given ones) and return all plans that fit.

    `workers` threads (default: all cores) share the layouts of the compiled engine; counts and
    order do not depend on it. `advance(n)` is told of every n layouts finished. Raises `InputError`
    where the original ends with a KeyError (`missing_profile_aborts`).
    """
    found = list(layouts) if layouts is not None else problem.layouts()
    parts = list[FoundPlans]()
    steps = uncostable = offset = 0
    walk = _walk_compiled if engine == "compiled" else _walk_readable
    for sequence, same in groupby(found, key=lambda layout: layout.node_sequence):
        block = list(same)
        model = StageModel(problem, problem.ranks(sequence))
        try:
            walked = walk(model, policy, block, workers, advance)
        except MissingProfile as missing:
            raise stopped(missing) from missing
        for plans, more_steps, dropped in walked:
            parts.append(plans._replace(layout=plans.layout + offset))
            steps += more_steps
            uncostable += dropped
        offset += len(block)
    return SearchResult(problem, policy, found, _concatenate(parts), steps, uncostable)


def rules_of(problem: Problem, policy: Policy) -> Rules:
    """Return the switches and the policy as the compiled engine takes them."""
    switches = problem.switches
    return Rules(
        stratified=policy == "stratified",
        lossy_balancer=switches.lossy_balancer,
        empty_stages=switches.empty_stages,
        first_success_ends_chain=switches.first_success_ends_chain,
        sends_every_batch=not switches.activations_in_elements,
    )


_Part = tuple[FoundPlans, int, int]


def _concatenate(parts: Sequence[FoundPlans]) -> FoundPlans:
    if not parts:
        nothing = np.zeros(0, dtype=np.int64)
        return FoundPlans(np.zeros(0), *(nothing,) * 6)
    return FoundPlans(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _walk_compiled(
    model: StageModel,
    policy: Policy,
    layouts: Sequence[Layout],
    workers: int | None,
    advance: Callable[[int], object],
) -> list[_Part]:
    # Imported here: numba takes most of a second, and only searches need it.
    from metis.plan.kernel import STOPPED, walk_layouts
    from metis.plan.tables import TableBuilder, ints

    builder = TableBuilder(model, model.problem.batches())
    slots = [builder.slots_of(layout.groups) for layout in layouts]
    starts = np.cumsum([0, *(len(row) for row in slots)]).astype(np.int64)
    flat = ints(slot for row in slots for slot in row)
    phantom = ints(int(layout.phantom) for layout in layouts)
    tables = builder.build()
    rules = rules_of(model.problem, policy)

    every_batch = (0, len(tables.batches))

    def walk(begin: int) -> _Part:
        end = min(begin + CHUNK, len(layouts))
        found = walk_layouts(tables, rules, starts, flat, phantom, (begin, end), every_batch)
        if found.steps == STOPPED:  # the readable engine comes to the same profile and names it
            _walk_readable(model, policy, layouts[begin:end], workers, advance)
            raise AssertionError("the readable engine misses no profile")
        advance(end - begin)
        return FoundPlans(*found[:7]), int(found.steps), int(found.uncostable)

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        return list(pool.map(walk, range(0, len(layouts), CHUNK)))


def _walk_readable(
    model: StageModel,
    policy: Policy,
    layouts: Sequence[Layout],
    workers: int | None,
    advance: Callable[[int], object],
) -> list[_Part]:
    rows: list[tuple[float, int, int, int, int, int, int]] = []
    steps = uncostable = 0
    for number, layout in enumerate(layouts):
        for b, batches in enumerate(model.problem.batches()):
            chain = Chain(model, layout.groups, batches, phantom=layout.phantom)
            for ordinal, plan in enumerate(chain.survivors(policy)):
                steps += plan.steps
                if plan.terms is None:
                    uncostable += 1
                    continue
                empty = sum(a == b for a, b in zip(plan.split, plan.split[1:], strict=False))
                row = (plan.terms.total, number, b, ordinal, plan.attempts, plan.split[-1], empty)
                rows.append(row)
        advance(1)
    columns = list(zip(*rows, strict=True)) or [()] * 7
    plans = FoundPlans(
        np.array(columns[0], dtype=np.float64),
        *(np.array(column, dtype=np.int64) for column in columns[1:]),
    )
    return [(plans, steps, uncostable)]
