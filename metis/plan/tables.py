"""The stage options of one node sequence as flat arrays, for the compiled engine."""

from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metis.plan import cost
from metis.plan.lookups import MissingProfile, stopped
from metis.plan.space import Groups
from metis.plan.stages import StageModel, StageOption

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

INVALID, ABSENT = -1, -2
"""No option: the strategy is not valid; a profile is absent, so that the original would stop."""


class Tables(NamedTuple):
    """Arrays over options (o), their memory kinds (m), slots (s) and layer ranges [first, end]."""

    option_of: Ints
    """Option of (slot, log2 tp, batches index); INVALID or ABSENT where there is none."""
    size: Ints
    """Devices of each slot."""
    ranges: Floats
    """All distinct range tables, (tables, L + 1, L + 1)."""
    performance: Floats
    time: Ints
    """Range table of each option's execution time."""
    memory_start: Ints
    """Memory kinds of option o: memory_start[o] .. memory_start[o + 1]."""
    memory_capacity: Floats
    memory_static: Ints
    memory_activations: Ints
    costable: NDArray[np.bool_]
    sync: Floats
    update: Floats
    """Milliseconds of the optimizer step if the stage held all layers."""
    allreduce: Floats
    """Milliseconds per byte of parameters."""
    parameters: Ints
    send_hidden: Floats
    send_before_head: Floats
    intra: Floats
    inter: Floats
    first_node: Ints
    last_node: Ints
    batch_generator: Floats
    batches: Ints
    layer_demand: Floats


class TableBuilder:
    """Collects slots and options; slots are numbered as they are first met."""

    def __init__(self, model: StageModel, batches: Sequence[int]) -> None:
        self.model = model
        self.batches = list(batches)
        self._slots: dict[tuple[Hashable, int], int] = {}
        self._options: list[StageOption] = []
        self._rows: list[list[list[int]]] = []
        self._ranges: list[Floats] = []
        self._range_index: dict[int, int] = {}
        self.absent: MissingProfile | None = None
        """The first profile that some option lacks and the original would stop at."""

    def slots_of(self, groups: Groups) -> list[int]:
        """Return the slot of every stage of a layout."""
        first, slots = 0, list[int]()
        for size in groups:
            slots.append(self.slot(first, size))
            first += size
        return slots

    def slot(self, first: int, size: int) -> int:
        """Return the number of the slot of a group, new or known."""
        key = (first, size)
        if key not in self._slots:
            self._slots[key] = len(self._slots)
            self._rows.append(self._option_rows(first, size))
        return self._slots[key]

    def _option_rows(self, first: int, size: int) -> list[list[int]]:
        rows, tp = list[list[int]](), 1
        while size % tp == 0:
            rows.append([self._add(first, size, size // tp, tp, b) for b in self.batches])
            tp *= 2
        return rows

    def _add(self, first: int, size: int, dp: int, tp: int, batches: int) -> int:
        try:
            option = self.model.option(first, size, dp, tp, batches)
        except MissingProfile as missing:
            self.absent = self.absent or missing
            return ABSENT
        if option is None:
            return INVALID
        self._options.append(option)
        return len(self._options) - 1

    def _range(self, table: Floats) -> int:
        if id(table) not in self._range_index:
            self._range_index[id(table)] = len(self._ranges)
            self._ranges.append(table)
        return self._range_index[id(table)]

    def build_all(self) -> Tables:
        """Return the arrays; raise `InputError` if any profile is absent that must be there."""
        if self.absent:
            raise stopped(self.absent)
        return self.build()

    def build(self) -> Tables:
        """Return the arrays of everything collected so far."""
        options, depth = self._options, max((len(rows) for rows in self._rows), default=1)
        layers = self.model.problem.model.layers
        option_of = np.full((len(self._rows), depth, len(self.batches)), INVALID, dtype=np.int64)
        for slot, rows in enumerate(self._rows):
            option_of[slot, : len(rows)] = rows
        kinds = [memory for option in options for memory in option.memory]
        time = ints(self._range(option.time) for option in options)
        static = ints(self._range(memory.static) for memory in kinds)
        activations = ints(self._range(memory.activations) for memory in kinds)
        parameters = ints(self._range(option.parameters) for option in options)
        return Tables(
            option_of=option_of,
            size=ints(size for _, size in self._slots),
            ranges=np.stack(self._ranges)
            if self._ranges
            else np.zeros((1, layers + 1, layers + 1)),
            performance=floats(o.performance for o in options),
            time=time,
            memory_start=np.cumsum([0, *(len(o.memory) for o in options)]).astype(np.int64),
            memory_capacity=floats(memory.capacity for memory in kinds),
            memory_static=static,
            memory_activations=activations,
            costable=np.array([o.costable for o in options], dtype=np.bool_),
            sync=floats(o.sync_ms for o in options),
            update=floats(
                cost.update_ms(o.optimizer_ms, tp=o.tp, layers=1, all_layers=1) for o in options
            ),
            allreduce=floats(
                cost.allreduce_ms(1.0, dp=o.dp, bandwidth=o.allreduce_bandwidth) for o in options
            ),
            parameters=parameters,
            send_hidden=floats(o.send_hidden for o in options),
            send_before_head=floats(o.send_before_head for o in options),
            intra=floats(o.intra_bandwidth for o in options),
            inter=floats(o.inter_bandwidth for o in options),
            first_node=ints(o.node_span[0] for o in options),
            last_node=ints(o.node_span[1] for o in options),
            batch_generator=floats(o.batch_generator_ms for o in options),
            batches=ints(self.batches),
            layer_demand=floats(self.model.layer_demand),
        )


def floats(values: Iterable[float]) -> Floats:
    """Return values as a float64 array."""
    return np.array(list(values), dtype=np.float64)


def ints(values: Iterable[int]) -> Ints:
    """Return values as an int64 array."""
    return np.array(list(values), dtype=np.int64)
