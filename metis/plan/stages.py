"""What a group of devices does with a strategy: time, memory and traffic of one stage.

`StageModel.option` turns (first rank, devices, dp, tp, micro-batches) into a `StageOption` whose
tables answer for every layer range. Both engines, the bounds and the plan writer use it.
Layer ranges are half open: [first, end); tables have shape (L + 1, L + 1), indexed [first, end].
"""

from typing import NamedTuple

import numpy as np

from metis.inputs.cluster import Node
from metis.inputs.profile import LayerProfile, ProfileKey
from metis.inputs.savings import Recompute
from metis.plan import cost
from metis.plan.balance import split_samples
from metis.plan.lookups import (
    MissingProfile,
    ProfileTables,
    Table,
    binary_digits,
    range_sums,
    total,
)
from metis.plan.problem import Problem
from metis.plan.ranks import Rank, Ranks

MEMORY_COEFFICIENT = 5.0
"""The original's factor on profiled memory."""

MEMORY_OFFSET = 0.001
"""The original's start value of a stage's demand, MB."""


class DeviceMemory(NamedTuple):
    """Memory of one kind of device in a stage, MB.

    demand(range, in flight) = static[range] + in_flight * activations[range].
    """

    capacity: float
    static: Table
    activations: Table


class StageOption(NamedTuple):
    """One stage with one strategy and one number of micro-batches."""

    first_rank: int
    devices: int
    dp: int
    tp: int
    samples: tuple[int, ...]
    """Samples per replica and micro-batch."""
    performance: float
    """1 / time of the whole model, not normalised."""
    time: Table
    """E_s: forward + backward of one micro-batch, ms."""
    memory: tuple[DeviceMemory, ...]
    costable: bool
    """False where the original's cost estimator meets a missing profile and drops the plan."""
    sync_ms: float
    """Time outside layers; counts on the last stage only. Infinite where the original misses it
    and drops the plan."""
    optimizer_ms: float
    """Of the whole model on one device, or one replica's part of it where it is sharded."""
    parameters: Table
    """Bytes per rank."""
    allreduce_bandwidth: float
    send_hidden: float
    """Amount handed to the next stage per micro-batch (bytes, or elements in compat)."""
    send_before_head: float
    """The same where the next stage holds only the output head."""
    intra_bandwidth: float
    inter_bandwidth: float
    node_span: tuple[int, int]
    batch_generator_ms: float
    recompute: Recompute = "none"
    sharded: bool = False
    """Whether each replica holds and updates its part of the optimizer's states only."""


def _kind(rank: Rank, node: Node) -> tuple[object, ...]:
    """Return all that distinguishes a rank for planning.

    The rank's own device and memory too: the original's placement may count it to a node of
    another type.
    """
    facts = node.device, node.devices, node.memory_mb, node.intra_bandwidth, node.inter_bandwidth
    return rank.device, rank.memory_mb, *facts


class StageModel:
    """All stage options of one problem along one node sequence, made when asked for."""

    def __init__(self, problem: Problem, ranks: Ranks, like: "StageModel | None" = None) -> None:
        """Take tables that do not depend on the placement from a model `like` this one."""
        self.problem = problem
        self.ranks = ranks
        self._switches = problem.switches
        self._profiles = problem.profiles
        self._samples_total = problem.model.global_batch
        self._options: dict[tuple[object, ...], StageOption | None] = {}
        kinds = [_kind(rank, ranks.nodes[rank.node]) for rank in ranks.ranks]
        numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
        self._kind_of_rank = np.array([numbers[kind] for kind in kinds])
        self._node_of_rank = np.array([rank.node for rank in ranks.ranks])
        self._tables: dict[object, Table] = like._tables if like else {}
        self._lookup = like._lookup if like else ProfileTables(problem.profiles)
        first = next(iter(self._profiles))
        self._first = self._profiles[first]
        demand_of = first.device if self._switches.first_profile_rules else ranks.node_sequence[0]
        durations = self._profiles.base(demand_of).layer_ms
        whole = sum(durations)
        self.layer_demand = tuple(time / whole for time in durations)

    def option(
        self, first_rank: int, devices: int, dp: int, tp: int, batches: int,
        recompute: Recompute | None = None,
    ) -> StageOption | None:  # fmt: skip
        """Return the stage option, or None if the strategy is not valid there.

        Without `recompute` it does as little again as the problem lets it. Groups that look alike
        (same kinds of nodes, cut at the same places) share their tables. Raises `MissingProfile`
        where the original stops (`missing_profile_aborts`).
        """
        end = first_rank + devices
        nodes = self._node_of_rank[first_rank:end]
        alike = (self._kind_of_rank[first_rank:end].tobytes(), (nodes - nodes[0]).tobytes())
        recompute = recompute or self.problem.savers.recompute[0]
        key = (alike, dp, tp, batches, recompute)
        if key not in self._options:
            self._options[key] = self._make(first_rank, devices, dp, tp, batches, recompute)
        option = self._options[key]
        if option is None or option.first_rank == first_rank:
            return option
        return option._replace(first_rank=first_rank, node_span=(int(nodes[0]), int(nodes[-1])))

    def allows(self, dp: int, tp: int, batches: int) -> bool:
        """Say whether a strategy keeps the limits on degree and batch, whatever the devices."""
        micro_batch = self._samples_total // batches // dp
        if not self._switches.any_tensor_degree and not self.problem.model.splits_over(tp):
            return False
        if self._switches.first_device_speed and micro_batch > self.problem.max_batch_size:
            return False
        return tp <= self.problem.max_tp and micro_batch >= 1

    def _make(
        self, first_rank: int, devices: int, dp: int, tp: int, batches: int, recompute: Recompute
    ) -> StageOption | None:
        if not self.allows(dp, tp, batches):
            return None
        switches = self._switches
        per_batch = self._samples_total // batches
        micro_batch = per_batch // dp
        types = self.ranks.types(first_rank, devices)
        try:
            parts = (
                self._original_compute(types, dp, tp, per_batch)
                if switches.first_device_speed
                else self._compute(types, first_rank, dp, tp, per_batch, recompute)
            )
            if parts is None:
                return None
            samples, time, full_ms, costable = parts
            memory = (
                self._group_memory(types, first_rank, devices, dp, tp, per_batch)
                if switches.group_memory
                else self._device_memory(types, first_rank, tp, samples, recompute)
            )
            sync_ms = self._sync(types, tp, samples, micro_batch)
        except MissingProfile:
            if switches.missing_profile_aborts:
                raise
            return None
        intra, inter = self.ranks.bandwidths(first_rank, devices)
        amounts = self._send_amounts(first_rank, devices, tp, max(samples), micro_batch)
        return StageOption(
            first_rank=first_rank,
            devices=devices,
            dp=dp,
            tp=tp,
            samples=samples,
            performance=1.0 / full_ms if full_ms > 0 else 0.0,
            time=time,
            memory=memory,
            costable=costable,
            sync_ms=sync_ms,
            optimizer_ms=switches.updates
            * max(self._constants(t).optimizer_ms for t in set(types))
            / self._shards(dp),
            parameters=self._parameters(tp),
            allreduce_bandwidth=self._allreduce_bandwidth(first_rank, devices, tp),
            send_hidden=amounts[0],
            send_before_head=amounts[1],
            intra_bandwidth=intra,
            inter_bandwidth=intra if switches.intra_bandwidth_only else inter,
            node_span=self.ranks.node_span(first_rank, devices),
            batch_generator_ms=max(self._constants(t).batch_generator_ms for t in set(types)),
            recompute=recompute,
            sharded=self._shards(dp) > 1,
        )

    def _shards(self, dp: int) -> int:
        """Return over how many replicas the optimizer's states and its work are shared out."""
        return dp if self.problem.savers.sharded else 1

    # --- execution time ---------------------------------------------------------------------

    def _compute(
        self, types: tuple[str, ...], first_rank: int, dp: int, tp: int, per_batch: int,
        recompute: Recompute,
    ) -> tuple[tuple[int, ...], Table, float, bool] | None:  # fmt: skip
        """Strict: replicas at the speed of their slowest member, each inside one node."""
        replicas = [types[i * tp : (i + 1) * tp] for i in range(dp)]
        if tp > 1:
            nodes = [rank.node for rank in self.ranks.ranks[first_rank : first_rank + dp * tp]]
            if any(nodes[i * tp] != nodes[(i + 1) * tp - 1] for i in range(dp)):
                return None
        slowest = [self._lookup.slowest_ms(frozenset(members), tp) for members in replicas]
        samples = split_samples([1.0 / ms for ms in slowest], per_batch)
        kinds = {(frozenset(m), n) for m, n in zip(replicas, samples, strict=True)}
        if min(samples) < 1 or max(samples) > self.problem.max_batch_size:
            return None
        time = self._lookup.slowest_table(
            tuple(sorted((tuple(sorted(members)), n, tp) for members, n in kinds)), recompute
        )
        return samples, time, float(time[0, -1]), True

    def _original_compute(
        self, types: tuple[str, ...], dp: int, tp: int, per_batch: int
    ) -> tuple[tuple[int, ...], Table, float, bool]:
        """Compat: one type from its profile; several by first devices and binary digits."""
        if len(set(types)) == 1:
            entry = self._lookup.exact(types[0], tp, per_batch // dp)
            time = self._lookup.sums("time", types[0], tp, per_batch // dp)
            return (per_batch // dp,) * dp, time, total(entry.layer_ms), True
        samples = self._lookup.balanced(types, dp, tp, per_batch)
        width = len(types) // dp
        kinds: dict[tuple[str, int], None] = {}
        for i, share in enumerate(samples):
            if share:
                kinds[types[i * width], share] = None
        full = max((self._lookup.digits_ms(device, tp, n) for device, n in kinds), default=0.0)
        table = np.max([self._lookup.digits_table(device, tp, n) for device, n in kinds], axis=0)
        largest = max(binary_digits(n)[0] for _, n in kinds)
        return samples, table, full, largest <= self.problem.max_batch_size

    # --- memory -----------------------------------------------------------------------------

    def _device_memory(
        self, types: tuple[str, ...], first_rank: int, tp: int, samples: tuple[int, ...],
        recompute: Recompute,
    ) -> tuple[DeviceMemory, ...]:  # fmt: skip
        """Strict: every kind of device (type, samples, memory) on its own."""
        kinds: dict[tuple[str, int], float] = {}
        shards = self._shards(len(samples))
        for offset, device in enumerate(types):
            kind = (device, samples[offset // tp])
            capacity = self.ranks.ranks[first_rank + offset].memory_mb
            kinds[kind] = min(kinds.get(kind, capacity), capacity)
        return tuple(
            DeviceMemory(
                capacity * self.problem.memory_fraction,
                self._lookup.static_memory(device, tp, n, recompute, shards),
                self._lookup.activation_memory(device, tp, n, recompute),
            )
            for (device, n), capacity in sorted(kinds.items())
        )

    def _group_memory(
        self,
        types: tuple[str, ...],
        first_rank: int,
        devices: int,
        dp: int,
        tp: int,
        per_batch: int,
    ) -> tuple[DeviceMemory, ...]:
        """Compat: one device's demand against the whole group's memory."""
        capacity = 0.0
        for rank in self.ranks.ranks[first_rank : first_rank + devices]:
            capacity += rank.memory_mb
        mixed = len(set(types)) > 1
        key = ("group", mixed, dp, tp, per_batch)
        if key not in self._tables:
            self._tables[key] = self._group_demand(mixed, dp, tp, per_batch)
        return (DeviceMemory(capacity, self._tables[key], self._lookup.zeros()),)

    def _group_demand(self, mixed: bool, dp: int, tp: int, per_batch: int) -> Table:
        """Return the original's demand, from the profile of the sequence's first type.

        A stage of several types adds up the replicas of the whole cluster, digit by digit.
        """
        device = self.ranks.node_sequence[0]
        if not mixed:
            sums = self._lookup.sums("memory", device, tp, per_batch // dp)
            return MEMORY_OFFSET + MEMORY_COEFFICIENT * sums
        per_node = self.ranks.devices_per_node
        everywhere = [node.device for node in self.ranks.nodes for _ in range(per_node)]
        demand = np.full((self._profiles.layers + 1,) * 2, MEMORY_OFFSET)
        for share in self._lookup.balanced(everywhere, dp, tp, per_batch):
            for digit in binary_digits(share):
                demand += MEMORY_COEFFICIENT * self._lookup.sums("memory", device, tp, digit)
        return demand

    # --- constants, parameters, traffic -----------------------------------------------------

    def _constants(self, device: str) -> LayerProfile:
        """Return the profile that supplies optimizer and batch-generator time."""
        return self._first if self._switches.first_profile_rules else self._profiles.base(device)

    def _sync(
        self, types: tuple[str, ...], tp: int, samples: tuple[int, ...], micro_batch: int
    ) -> float:
        """Return the stage's time outside layers, infinite where the original has none."""
        if self._switches.first_device_speed:
            keys = [ProfileKey(device, tp, micro_batch) for device in sorted(set(types))]
            values = [self._profiles[k].sync_ms if k in self._profiles else 0.0 for k in keys]
            return max(values) if all(values) else float("inf")
        kinds = {
            (device, n)
            for i, n in enumerate(samples)
            for device in set(types[i * tp : (i + 1) * tp])
        }
        return max(max(self._lookup.profile(d, tp, n).sync_ms, 0.0) for d, n in kinds)

    def _parameters(self, tp: int) -> Table:
        """Return bytes per rank of every layer range."""
        if ("parameters", tp) not in self._tables:
            sizes = self._first.parameters_bytes
            if self._switches.first_profile_rules:
                layers = self._profiles.layers
                table = np.zeros((layers + 1, layers + 1))
                for first in range(layers + 1):
                    for end in range(first, layers + 1):
                        table[first, end] = cost.original_parameters(
                            sizes, tp=tp, first=first, end=end
                        )
            else:
                table = range_sums(sizes) / tp
            self._tables["parameters", tp] = table
        return self._tables["parameters", tp]

    def _allreduce_bandwidth(self, first_rank: int, devices: int, tp: int) -> float:
        """Return GB/s of one of the stage's `tp` rings.

        Inside a node a ring has the node's bandwidth; across nodes the tp rings of a replica
        share the node's link.
        """
        intra, inter = self.ranks.bandwidths(first_rank, devices)
        low, high = self.ranks.node_span(first_rank, devices)
        if self._switches.intra_bandwidth_only or low == high:
            return intra
        return inter / tp

    def _send_amounts(
        self, first_rank: int, devices: int, tp: int, most_samples: int, micro_batch: int
    ) -> tuple[float, float]:
        """Return what crosses a stage's border per micro-batch: usual, and before the head."""
        model = self.problem.model
        if self._switches.activations_in_elements:
            tokens = micro_batch * model.sequence_length
            return float(tokens * model.hidden_size), tokens * model.vocabulary / tp
        replicas = max(self.ranks.most_per_node(first_rank, devices) // tp, 1)
        elements = most_samples * model.sequence_length * model.hidden_size
        amount = float(cost.DIRECTIONS * cost.BYTES_PER_ELEMENT * elements * replicas)
        return amount, amount
