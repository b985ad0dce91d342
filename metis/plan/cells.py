"""One order of the runs and number of micro-batches: its dynamic program, and plans from it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from metis.plan.catalogue import Catalogue, Line, Models, TimeOver
from metis.plan.kernel_line import TOTAL, Held, Limits, Way, best_ways, follow
from metis.plan.lines import ranks_of
from metis.plan.memory import demand_and_capacity, in_flight
from metis.plan.problem import Problem
from metis.plan.search import RankedPlan
from metis.plan.space import Layout
from metis.plan.stages import StageModel, StageOption
from metis.plan.tables import Floats, Ints, Tables
from metis.plan.walk import Survivor, stage_cost

MOST_WORK = 1e9
"""Steps of a dynamic program at most, a few seconds."""

LEVELS = 4
"""Times more levels in the next finer grain."""


class Grain(NamedTuple):
    """How much a dynamic program knows of the stages that follow one."""

    levels: int
    """How many of them it counts."""
    exact: bool
    """Whether it counts all, and knows over which link it sends to the next."""


ROUGH = Grain(1, False)


class Found(NamedTuple):
    """A plan and the machines that it stands on, in rank order."""

    plan: RankedPlan
    machines: tuple[int, ...]

    @property
    def cost_ms(self) -> float:
        """Milliseconds per iteration."""
        return self.plan.cost_ms


def costed(
    model: StageModel, batches: int, options: Sequence[StageOption], split: Sequence[int],
    machines: Sequence[int],
) -> Found:  # fmt: skip
    """Return the plan of stages with known layer boundaries, which memory holds."""
    terms = stage_cost(options, split, model.problem, batches)
    strategies = tuple((o.dp, o.tp) for o in options)
    survivor = Survivor(strategies, tuple(split), 1, 0, terms, tuple(options))
    layout = Layout(model.ranks.node_sequence, tuple(o.devices for o in options))
    return Found(RankedPlan(layout, batches, survivor, model), tuple(machines))


class Answered(NamedTuple):
    """What the dynamic program says under some limits."""

    total: float
    """Least sum of times, ms; infinite where there is no way."""
    most: Floats
    """Largest pace, update and all-reduce on that way, ms."""
    rows: Ints
    """Its stages: rank, arc, degree, first layer, end of layers."""


class Setting(NamedTuple):
    """What all cells of a number of micro-batches share."""

    problem: Problem
    models: Models
    catalogue: Catalogue
    tables: Tables
    memory: Held
    stopped: Ints
    """Not 0 once the search is to end."""


class Cell:
    """All plans along a line with one number of micro-batches."""

    def __init__(self, setting: Setting, line: Line) -> None:
        self.problem, self.models, self.line = setting.problem, setting.models, line
        self.tables, self.memory, self.stopped = setting.tables, setting.memory, setting.stopped
        catalogue = setting.catalogue
        self.strategies, self.batches = catalogue.strategies, catalogue.batches[0]
        self.weights = np.array([self.batches - 1.0, 1.0, 1.0])
        self.roughly = catalogue.slots(self.tables, exact=False)
        self.exactly = catalogue.slots(self.tables, exact=True)
        stages = min(len(line.arcs.opens), self.problem.model.layers)
        most = min(self.batches, stages) - 1
        self.most_levels = max(most, 1)
        self.work = self._work()

    def finer(self, grain: Grain) -> Grain | None:
        """Return a grain that knows more, None where there is none or it takes too long."""
        if grain.exact:
            return None
        levels = min(LEVELS * grain.levels, self.most_levels)
        classes = len(self.exactly.kind_inter)
        if levels == self.most_levels and self.work * levels * classes <= MOST_WORK:
            return Grain(levels, True)
        if levels > grain.levels and self.work * levels <= MOST_WORK:
            return Grain(levels, False)
        return None

    def _work(self) -> float:
        """Return how many (group, strategy, layers) triples there are."""
        valid = (self.tables.option_of[:, :, 0] >= 0).sum(axis=1)
        pairs = self.problem.model.layers**2 / 2
        return float(max(valid[self.line.arcs.slot].sum(), 1) * pairs)

    def ask(
        self, limits: Limits, grain: Grain, measure: int = TOTAL, *, whole: bool = False
    ) -> Answered:
        """Run the dynamic program; TimeOver where it was stopped."""
        slots, levels = self.exactly if grain.exact else self.roughly, grain.levels
        found: Way = best_ways(
            self.tables, self.line.arcs, slots, self.memory, self.batches, levels, limits,
            measure, grain.exact, whole, self.stopped,
        )  # fmt: skip
        if self.stopped[0]:
            raise TimeOver
        return Answered(*follow(self.tables, self.line.arcs, slots, found, grain.exact))

    def plan(self, rows: Ints) -> Found | None:
        """Return the plan of some stages with its full cost, None where memory is too small."""
        nodes, machines, groups = [], list[int](), list[int]()
        for rank, arc, *_ in rows.tolist():
            shape = self.line.shapes[self.line.arcs.slot[arc]]
            for at in self._nodes(rank, shape.parts):
                if at not in machines[-1:]:
                    machines.append(at)
            groups.append(shape.devices)
        every = self.problem.cluster.machines()
        nodes = [every[number] for number in machines]
        model = StageModel(self.problem, ranks_of(nodes), like=self.models.everywhere)
        first, split, options = 0, [0], list[StageOption]()
        for s, (size, row) in enumerate(zip(groups, rows.tolist(), strict=True)):
            _, _, number, start, end = row
            tp, flights = self.strategies[int(number)].tp, in_flight(s, len(groups), self.batches)
            # What the dynamic program took may hold too little in flight: the quickest that fits.
            for kind in self.problem.savers.recompute:
                option = model.option(first, size, size // tp, tp, self.batches, kind)
                assert option is not None, "the tables hold valid options only"
                demand, capacity = demand_and_capacity(option, start, end, flights)
                if demand <= capacity:
                    break
            else:
                return None
            options.append(option)
            split.append(end)
            first += size
        return costed(model, self.batches, options, split, machines)

    def _nodes(self, rank: int, parts: tuple[tuple[int, int], ...]) -> list[int]:
        """Return the machines under a group that begins at a rank of the line."""
        start, found = 0, list[int]()
        taken = dict(parts)
        for run in self.line.order:
            if run.number in taken:
                inside = rank - start if run.number == parts[0][0] else 0
                size = run.node.devices
                last = inside + taken[run.number] - 1
                found += run.machines[inside // size : last // size + 1]
            start += run.devices
        return found
