"""The planning problem: model, cluster, profiles and the limits of the search."""

from math import factorial
from typing import Literal

import msgspec

from common.errors import InputError
from metis.inputs.cluster import Cluster
from metis.inputs.model import Model
from metis.inputs.profile import Profiles
from metis.inputs.savings import NO_SAVERS, Savers
from metis.plan.ranks import Ranks, place, place_as_original
from metis.plan.space import (
    Groups,
    Layout,
    arrangements,
    device_groups,
    divisors_descending,
    enumerate_layouts,
    group_multisets,
    group_sizes,
    merge_units,
    smallest_group,
)
from metis.plan.switches import Switches

Policy = Literal["metis", "stratified"]

MOST_LAYOUTS = 2_000_000
"""Layouts that are listed at most: about a gigabyte, and minutes of walking."""

POLICIES: tuple[Policy, ...] = ("metis", "stratified")


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a search needs; `limits` are the artifact's command-line options."""

    model: Model
    cluster: Cluster
    profiles: Profiles
    node_types: tuple[str, ...]
    """Order of the device types from which node sequences are permuted."""
    switches: Switches
    max_tp: int
    max_batch_size: int
    group_variance: float
    """Lower limit on group sizes, as a multiple of an equal split (SCALE_VARIANCE)."""
    max_permute_len: int
    memory_fraction: float = 1.0
    """Usable part of a device's memory (strict)."""
    savers: Savers = NO_SAVERS
    """What stages may do to save memory (strict)."""

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        present = set(self.cluster.device_types())
        if set(self.node_types) != present:
            raise InputError(
                f"search.node_sequence has {list(self.node_types)}, but the cluster's device"
                f" types are {sorted(present)}; name each of them once"
            )
        missing = sorted(present - set(self.profiles.device_types()))
        if missing:
            raise InputError(
                f"{self.profiles.origin} has no profile of {', '.join(missing)}"
                f" (it has {', '.join(self.profiles.device_types())}); profile these devices"
                " or give profile.time_scale for them"
            )
        if self.profiles.layers != self.model.layers:
            raise InputError(
                f"{self.profiles.origin} has {self.profiles.layers} layers,"
                f" but model.layers is {self.model.layers}"
            )
        if self.switches.powers_of_two_only and self.cluster.total_devices().bit_count() != 1:
            raise InputError(
                f"the cluster has {self.cluster.total_devices()} devices; the original stops here"
                " with an IndexError because it needs a power of two (use mode = 'strict')"
            )

    @property
    def devices(self) -> int:
        """Number of devices of the cluster."""
        return self.cluster.total_devices()

    @property
    def max_stages(self) -> int:
        """Largest number of pipeline stages."""
        return min(self.devices, self.model.layers)

    def batches(self) -> list[int]:
        """Return the candidate numbers of micro-batches, most first."""
        return divisors_descending(self.model.global_batch)

    def ranks(self, node_sequence: tuple[str, ...]) -> Ranks:
        """Return the placement of ranks for a node sequence."""
        if self.switches.group_memory or self.switches.intra_bandwidth_only:
            return place_as_original(self.cluster, node_sequence)
        return place(self.cluster, node_sequence)

    def sizes(self) -> list[int]:
        """Return the allowed sizes of device groups."""
        machines = self.cluster.machines()
        natural = [node.devices for node in machines] + [
            sum(node.devices for node in machines if node.device == device)
            for device in self.node_types
        ]
        return group_sizes(
            self.devices,
            node_sizes=natural,
            powers_of_two_only=self.switches.powers_of_two_only,
        )

    def _check_countable(self) -> None:
        """Count orderings of multisets, which is quick, before listing them."""
        sequences, count, sizes = factorial(len(self.node_types)), 0, self.sizes()
        for stages in range(1, self.max_stages + 1):
            lower = smallest_group(self.devices, stages, self.group_variance)
            allowed = [size for size in sizes if size >= lower]
            for multiset in group_multisets(self.devices, stages, allowed) if allowed else ():
                count += sequences * arrangements(merge_units(multiset, self.max_permute_len))
                if count > MOST_LAYOUTS:
                    raise InputError(
                        f"there are more than {MOST_LAYOUTS:,} layouts to list for {self.devices}"
                        f" devices; lower search.max_permute_len ({self.max_permute_len}), raise"
                        f" search.group_variance ({self.group_variance:g}), or use method optimal"
                        " or wider, which do not list them"
                    )

    def groups(self, stages: int) -> list[Groups]:
        """Return the device groups of a stage count, in enumeration order."""
        return list(
            device_groups(
                self.devices,
                stages,
                self.sizes(),
                variance=self.group_variance,
                max_permute_len=self.max_permute_len,
            )
        )

    def layouts(self) -> list[Layout]:
        """Return all layouts in enumeration order.

        Raises `InputError` when there are too many to list (`MOST_LAYOUTS`).
        """
        self._check_countable()
        return list(
            enumerate_layouts(
                self.node_types,
                self.max_stages,
                lambda stages: iter(self.groups(stages)),
                phantom_pass=self.switches.phantom_pass,
            )
        )
