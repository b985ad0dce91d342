"""The placement as a value: groups of devices, each running its models under one config.

AlpaServe §4.2: a group is `op * pp` devices; every one of its models runs on all of them.
"""

import math

import msgspec

from beta.inputs.cluster import GIB, Cluster
from beta.inputs.model import Model
from beta.inputs.profile import Config
from common.errors import InputError


class Group(msgspec.Struct, frozen=True):
    """Devices that run their models (indices) under one config."""

    config: Config
    models: tuple[int, ...] = ()


class Placement(msgspec.Struct, frozen=True):
    """Groups in order; their number breaks ties between equally busy replicas."""

    groups: tuple[Group, ...]

    @property
    def devices(self) -> int:
        """Devices of all groups together."""
        return sum(group.config.devices for group in self.groups)

    @property
    def replicas(self) -> int:
        """Model instances of all groups together."""
        return sum(len(group.models) for group in self.groups)

    def configs(self) -> tuple[Config, ...]:
        """Return the different configs in order of first use."""
        return tuple(dict.fromkeys(group.config for group in self.groups))

    def with_model(self, group: int, model: int) -> "Placement":
        """Return the placement with one more replica, not normalised."""
        grown = msgspec.structs.replace(
            self.groups[group], models=(*self.groups[group].models, model)
        )
        return Placement((*self.groups[:group], grown, *self.groups[group + 1 :]))

    def normalised(self) -> "Placement":
        """Return the placement with each group's models ascending and the groups by them."""
        inside = [Group(group.config, tuple(sorted(group.models))) for group in self.groups]
        return Placement(tuple(sorted(inside, key=lambda group: group.models)))

    def renamed(self, models: tuple[int, ...]) -> "Placement":
        """Return the placement with model i called `models[i]`."""
        return Placement(
            tuple(
                Group(group.config, tuple(models[m] for m in group.models)) for group in self.groups
            )
        )


class Timetable(msgspec.Struct, frozen=True):
    """Placements that take turns: `placements[i]` from `start_s[i]` on (Clockwork++)."""

    start_s: tuple[float, ...]
    placements: tuple[Placement, ...]
    load_bytes_s: float = math.inf
    """How fast a device loads the weights that it lacks at a change; infinite: swaps are free."""


def empty(configs: tuple[Config, ...]) -> Placement:
    """Return groups without models."""
    return Placement(tuple(Group(config) for config in configs))


def used_bytes(group: Group, models: tuple[Model, ...]) -> float:
    """Return the weights of a group, bytes per device, by the heaviest stage of each model."""
    return sum(models[m].profile.memory_bytes(group.config) for m in group.models)


def packed(placement: Placement, cluster: Cluster) -> tuple[int, ...] | None:
    """Return each group's first device so that none straddles nodes; None where none is found.

    Groups larger than a node begin with one and take whole nodes. The largest come first, each
    into the first node with room: sure to succeed where sizes and nodes are powers of two.
    """
    per_node, devices = cluster.devices_per_node, cluster.devices
    used = [0] * -(-devices // per_node)
    first = [0] * len(placement.groups)
    sizes = [group.config.devices for group in placement.groups]
    for g in sorted(range(len(sizes)), key=lambda g: -sizes[g]):
        node = _room(used, sizes[g], cluster)
        if node is None:
            return None
        first[g] = node * per_node + used[node]
        left = sizes[g]
        while left > 0:
            taken = min(left, per_node)
            used[node] += taken
            left, node = left - taken, node + 1
    return tuple(first)


def _room(used: list[int], size: int, cluster: Cluster) -> int | None:
    """Return the first node with room for a group, or at which free nodes for it begin."""
    per_node = cluster.devices_per_node
    if size <= per_node:
        ends = [min(per_node, cluster.devices - n * per_node) for n in range(len(used))]
        return next((n for n, end in enumerate(ends) if used[n] + size <= end), None)
    if size % per_node:
        return None
    nodes, full = size // per_node, cluster.devices // per_node
    return next((n for n in range(full - nodes + 1) if not any(used[n : n + nodes])), None)


def verify(placement: Placement, models: tuple[Model, ...], cluster: Cluster) -> None:
    """Raise InputError where a placement cannot be carried out on the cluster."""
    if placement.devices > cluster.devices:
        raise InputError(
            f"the groups take {placement.devices} devices, the cluster has {cluster.devices}"
        )
    if packed(placement, cluster) is None:
        sizes = sorted({group.config.devices for group in placement.groups})
        raise InputError(
            f"groups of {', '.join(map(str, sizes))} devices do not fit into nodes of"
            f" {cluster.devices_per_node} so that none straddles two; change"
            " cluster.devices_per_node, or plan anew"
        )
    for number, group in enumerate(placement.groups):
        if len(set(group.models)) < len(group.models):
            raise InputError(f"group {number} holds a model twice: {list(group.models)}")
        unknown = [m for m in group.models if not 0 <= m < len(models)]
        if unknown:
            raise InputError(f"group {number} holds models {unknown} of {len(models)}")
        used = used_bytes(group, models)
        if used > cluster.memory_bytes:
            raise InputError(
                f"group {number} (op {group.config.op}, pp {group.config.pp}) needs"
                f" {used / GIB:.2f} GiB per device of {cluster.memory_bytes / GIB:.2f}"
            )
