"""The device groups of a problem as tables, for one number of micro-batches; lines as arrays."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from metis.inputs.savings import Recompute
from metis.plan.kernel_line import Arcs, Held, Slots, held
from metis.plan.lines import Run, Shape, Sizes, nodes_of, ranks_of, runs, shapes_from
from metis.plan.problem import Problem
from metis.plan.stages import StageModel
from metis.plan.tables import INVALID, TableBuilder, Tables, floats, ints


class Models:
    """The stage models of every group of nodes, sharing their tables."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.runs = problem, runs(problem.cluster)
        everywhere = [node for run in self.runs for node in [run.node] * len(run.machines)]
        self.everywhere = StageModel(problem, ranks_of(everywhere))
        self._first = dict(
            zip(
                (run.number for run in self.runs),
                accumulate((run.devices for run in self.runs), initial=0),
                strict=False,
            )
        )
        self._joined: dict[Shape, StageModel] = {}

    def of(self, shape: Shape) -> tuple[StageModel, int]:
        """Return a model that holds the group, and the group's first rank in it."""
        number, _ = shape.parts[0]
        if len(shape.parts) == 1:
            return self.everywhere, self._first[number] + shape.offset
        if shape not in self._joined:
            ranks = ranks_of(nodes_of(shape, self.runs))
            self._joined[shape] = StageModel(self.problem, ranks, like=self.everywhere)
        return self._joined[shape], shape.offset

    def degrees(self) -> list[int]:
        """Return the tensor degrees that are profiled and can be used, ascending."""
        profiles, model = self.problem.profiles, self.problem.model
        found = {tp for device in profiles.device_types() for tp in profiles.degrees(device)}
        return sorted(tp for tp in found if tp <= self.problem.max_tp and model.splits_over(tp))


class Strategy(NamedTuple):
    """How the devices of a group work; dp follows from their number."""

    tp: int
    recompute: Recompute


class TimeOver(Exception):
    """The time for a search is over."""


class Line(NamedTuple):
    """One order of the runs, and the groups along it."""

    order: tuple[Run, ...]
    arcs: Arcs
    shapes: tuple[Shape, ...]
    """Shape of every slot number."""


class Catalogue(TableBuilder):
    """All groups for one number of micro-batches."""

    def __init__(
        self, models: Models, batches: int, late: Callable[[], bool] = lambda: False,
        only: Sizes | None = None,
    ) -> None:  # fmt: skip
        """Stop with TimeOver as soon as it is `late`; `only`: groups of these sizes."""
        super().__init__(models.everywhere, [batches])
        self.models, self.late, self.only = models, late, only
        kinds = models.problem.savers.recompute
        self.strategies = [Strategy(tp, kind) for tp in models.degrees() for kind in kinds]
        self._quicker = list[int]()
        self.shapes = list[Shape]()
        self._number: dict[Shape, int] = {}

    def number(self, shape: Shape) -> int:
        """Return the slot of a group; INVALID where no strategy is valid on it."""
        if shape not in self._number:
            if self.late():
                raise TimeOver
            self._number[shape] = self._new(shape) if self._can_share(shape) else INVALID
        return self._number[shape]

    def _can_share(self, shape: Shape) -> bool:
        """Say whether some degree lets every replica have a sample and none too many."""
        problem, (batches,) = self.models.problem, self.batches
        samples = problem.model.global_batch // batches
        tps = {strategy.tp for strategy in self.strategies}
        dps = [shape.devices // tp for tp in tps if shape.devices % tp == 0]
        return any(dp <= samples <= dp * problem.max_batch_size for dp in dps)

    def _new(self, shape: Shape) -> int:
        self.model, first = self.models.of(shape)
        rows = self._strategies_on(first, shape.devices)
        if all(row == [INVALID] for row in rows):
            return INVALID
        self._slots[shape, shape.devices] = len(self._rows)
        self._rows.append(rows)
        self.shapes.append(shape)
        return len(self._rows) - 1

    def _strategies_on(self, first: int, size: int) -> list[list[int]]:
        """Return the option of every strategy; what saves memory is left out where all fits."""
        (batches,) = self.batches
        rows, before, tp_before = list[list[int]](), INVALID, 0
        for tp, kind in self.strategies:
            number, quicker = INVALID, before if tp == tp_before else INVALID
            if size % tp == 0 and not (quicker != INVALID and self._holds_all(quicker)):
                option = self.model.option(first, size, size // tp, tp, batches, kind)
                if option is not None:
                    number = len(self._options)
                    self._options.append(option)
                    self._quicker.append(quicker)
            rows.append([number])
            before, tp_before = number if number != INVALID else quicker, tp
        return rows

    def _holds_all(self, option: int) -> bool:
        """Say whether memory holds all layers and as many micro-batches as there can be."""
        flights = self._flights()
        return all(
            memory.static[0, -1] + flights * memory.activations[0, -1] <= memory.capacity
            for memory in self._options[option].memory
        )

    def _flights(self) -> int:
        """Return the most micro-batches that a stage can hold at a time."""
        problem = self.models.problem
        return max(min(self.batches[0], problem.devices, problem.model.layers), 2)

    def line(self, order: tuple[Run, ...]) -> Line:
        """Return the arrays of a line; its groups become slots."""
        return Line(order, _arcs(self, order), tuple(self.shapes))

    def memory(self, tables: Tables) -> Held:
        """Return what memory holds for every option."""
        known = dict[tuple[object, ...], int]()
        kind, example = list[int](), list[int]()
        columns = (tables.memory_capacity, tables.memory_static, tables.memory_activations)
        rows = list(zip(*(column.tolist() for column in columns), strict=True))
        starts = tables.memory_start.tolist()
        for o in range(len(starts) - 1):
            key = tuple(sorted(set(rows[starts[o] : starts[o + 1]])))
            if key not in known:
                known[key] = len(known)
                example.append(o)
            kind.append(known[key])
        return held(tables, ints(kind), ints(example), ints(self._quicker), self._flights())

    def slots(self, tables: Tables, *, exact: bool) -> Slots:
        """Return what neighbours must know of each slot; one class for all unless exact."""
        first = np.where(tables.option_of[:, :, 0] >= 0, tables.option_of[:, :, 0], -1).max(axis=1)
        single = tables.first_node[first] == tables.last_node[first]
        inter, intra = tables.inter[first], tables.intra[first]
        if not exact:
            kind = np.zeros(len(first), dtype=np.int64)
            return Slots(inter, intra, single, kind, np.array([np.inf]), np.array([True]))
        pairs = list(zip(inter.tolist(), single.tolist(), strict=True))
        kinds = sorted(set(pairs))
        kind = ints(kinds.index(pair) for pair in pairs)
        return Slots(
            inter, intra, single, kind, floats(i for i, _ in kinds), np.array([s for _, s in kinds])
        )


def _arcs(catalogue: Catalogue, order: Sequence[Run]) -> Arcs:
    """Lay the groups out along a line."""
    total = sum(run.devices for run in order)
    every, only = catalogue.models.problem.devices, catalogue.only
    starts = list(accumulate((run.devices for run in order), initial=0))
    start_of = {run.number: starts[at] for at, run in enumerate(order)}
    counts, slot, end = [0] * (total + 1), list[int](), list[int]()
    for at, run in enumerate(order):
        per_node = [
            [
                (catalogue.number(shape), shape)
                for shape in shapes_from(order, at, offset, every, only)
            ]
            for offset in range(run.node.devices)
        ]
        for r in range(starts[at], starts[at] + run.devices):
            left = starts[at] + run.devices - r
            for number, shape in per_node[(r - starts[at]) % run.node.devices]:
                if number == INVALID or shape.parts[0][1] > left:
                    continue
                last, devices = shape.parts[-1]
                slot.append(number)
                end.append(r + devices if len(shape.parts) == 1 else start_of[last] + devices)
            counts[r + 1] = len(slot)
    entries = _entries(order, starts)
    return Arcs(
        start=ints(counts),
        slot=ints(slot),
        end=ints(end),
        entry_start=ints(accumulate((len(row) for row in entries), initial=0)),
        entry=ints(e for row in entries for e in row),
        inside=np.array([_inside(order, starts, r) for r in range(total + 1)]),
        opens=np.array([r in starts[:-1] for r in range(total)]),
        node_inter=floats(run.node.inter_bandwidth for run in order for _ in range(run.devices)),
        node_intra=floats(run.node.intra_bandwidth for run in order for _ in range(run.devices)),
    )


def _inside(order: Sequence[Run], starts: Sequence[int], r: int) -> bool:
    return any(
        starts[at] < r < starts[at + 1] and (r - starts[at]) % run.node.devices != 0
        for at, run in enumerate(order)
    )


def _entries(order: Sequence[Run], starts: Sequence[int]) -> list[list[int]]:
    """Return where the next group may begin after one that ends at each rank."""
    rows = list[list[int]]()
    for r in range(starts[-1] + 1):
        later = [start for start in starts[:-1] if start > r]
        if _inside(order, starts, r):
            rows.append([r])
        else:
            rows.append(([r] if r < starts[-1] else []) + later)
    return rows
