"""The cluster: nodes of one device type each, their memory and bandwidths.

A cluster is written in our TOML (`[[cluster.nodes]]`) or read from the original's pair of
files, `hostfile` and `clusterfile.json` (see `hostfile.py`).
"""

import tomllib
from functools import cache
from importlib import resources
from math import inf

import msgspec

from common.errors import InputError

MB_PER_GB = 1024


class DeviceFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of a device type; the defaults behind a node that leaves them out."""

    memory_gb: float
    intra_bandwidth: float
    inter_bandwidth: float
    time_scale: float
    source: str


@cache
def known_devices() -> dict[str, DeviceFacts]:
    """Return the shipped table of device types (`metis/data/devices.toml`)."""
    text = resources.files("metis").joinpath("data/devices.toml").read_text()
    return msgspec.convert(tomllib.loads(text), dict[str, DeviceFacts])


class NodeGroup(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """`count` equal nodes with `devices` devices of type `device` each.

    Bandwidths are GB/s per node: `intra` between devices of the node, `inter` to other nodes.
    What is left out comes from the shipped device table.
    """

    device: str
    count: int = 1
    devices: int
    memory_gb: float | None = None
    intra_bandwidth: float | None = None
    inter_bandwidth: float | None = None
    host: str = ""

    def __post_init__(self) -> None:
        """Refuse empty groups and figures that no machine has."""
        where = f"cluster.nodes ({self.device or 'no device'})"
        if not self.device:
            raise InputError(f"{where}: device is empty, expected a type such as A100")
        for field in ("count", "devices"):
            if getattr(self, field) < 1:
                raise InputError(f"{where}: {field} is {getattr(self, field)}, expected 1 or more")
        for field in ("memory_gb", "intra_bandwidth", "inter_bandwidth"):
            value = getattr(self, field)
            if value is None and self.device not in known_devices():
                raise InputError(
                    f"{where}: {field} is missing and {self.device!r} is not in the device table"
                    f" ({', '.join(sorted(known_devices()))}); write {field}"
                )
            if value is not None and not 0 < value < inf:
                raise InputError(f"{where}: {field} is {value}, expected a positive number")

    def fact(self, field: str) -> float:
        """Return the node's own figure, or the device table's."""
        value = getattr(self, field)
        return value if value is not None else getattr(known_devices()[self.device], field)


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One machine with all its figures resolved (GB/s, MB)."""

    device: str
    devices: int
    memory_mb: float
    intra_bandwidth: float
    inter_bandwidth: float
    host: str = ""


class Cluster(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A list of node groups, in the user's order."""

    nodes: tuple[NodeGroup, ...]

    def __post_init__(self) -> None:
        """Refuse a cluster without machines."""
        if not self.nodes:
            raise InputError("cluster.nodes is empty, expected at least one node")

    def machines(self) -> list[Node]:
        """Return every machine, groups expanded, in the user's order."""
        return [
            Node(
                device=group.device,
                devices=group.devices,
                memory_mb=group.fact("memory_gb") * MB_PER_GB,
                intra_bandwidth=group.fact("intra_bandwidth"),
                inter_bandwidth=group.fact("inter_bandwidth"),
                host=group.host or f"node{number}-{index}",
            )
            for number, group in enumerate(self.nodes)
            for index in range(group.count)
        ]

    def device_types(self) -> list[str]:
        """Return the distinct device types in order of first appearance."""
        return list(dict.fromkeys(group.device for group in self.nodes))

    def total_devices(self) -> int:
        """Return the number of devices over all machines."""
        return sum(group.count * group.devices for group in self.nodes)

    def in_sequence(self, node_sequence: tuple[str, ...]) -> list[Node]:
        """Return the machines in rank order: all of the sequence's first type, then the next."""
        machines = self.machines()
        return [node for device in node_sequence for node in machines if node.device == device]
