"""The cluster: nodes of one device type each, their memory and bandwidths.

A cluster is written in our TOML (`[[cluster.nodes]]`) or read from the original's pair of
files, `hostfile` and `clusterfile.json` (see `hostfile.py`).
"""

import tomllib
from functools import cache
from importlib import resources
from math import inf

import msgspec

from common.devices import Device, find
from common.errors import InputError
from common.names import near

MB_PER_GB = 1024

DECIMAL = 1e9 / 2**30
"""Data sheets count a GB as 1e9 bytes, memories here as 2^30."""

MOST_DEVICES = 16_384
"""Devices of a cluster at most."""

NETWORK = 10.0
"""GB/s between nodes where nobody says it, as in the shipped table: 100 Gbit/s less overhead."""


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
    What is left out comes from the shipped device table or, with the analytic profile, from the
    devices' data sheets.
    """

    device: str
    """Device type: a name of the shipped table or of `common/devices.toml` (H100, RTX 4090), or
    one's own with all figures given."""
    count: int = 1
    """Equal nodes of this kind."""
    devices: int
    """Devices a node."""
    memory_gb: float | None = None
    """Memory of a device, GB; by default the table's or the data sheet's."""
    intra_bandwidth: float | None = None
    """Between devices of a node, GB/s; by default the table's, or the data sheet's NVLink or PCIe,
    one direction."""
    inter_bandwidth: float | None = None
    """To other nodes, GB/s a node; by default the table's, or 10 for devices not in it."""
    host: str = ""
    """Host name of the node, for the launch files (count 1)."""
    usd_per_hour: float | None = None
    """Price of a device, US dollars an hour, for search.objective and search.max_usd_per_hour; by
    default the data sheet's, one provider's list price."""

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
            if value is None and self.device not in known_devices() and not self.sheet():
                raise InputError(
                    f"{where}: {field} is missing and {self.device!r} is not in the device table"
                    f" ({', '.join(sorted(known_devices()))}) nor in common/devices.toml; write"
                    f" {field}"
                )
            if value is not None and not 0 < value < inf:
                raise InputError(f"{where}: {field} is {value}, expected a positive number")
        if self.usd_per_hour is not None and not 0 < self.usd_per_hour < inf:
            raise InputError(
                f"{where}: usd_per_hour is {self.usd_per_hour}, expected a positive number"
            )

    def host_of(self, number: int, index: int) -> str:
        """Return the host of the group's node `index`, the group being number `number`."""
        return self.host or f"node{number}-{index}"

    def fact(self, field: str) -> float:
        """Return the node's own figure, or the device table's, or the data sheet's."""
        value = getattr(self, field)
        if value is None and self.device in known_devices():
            return getattr(known_devices()[self.device], field)
        return value if value is not None else getattr(self.by_sheet(), field)

    def sheet(self) -> Device | None:
        """Return the device's data sheet, None where none has its name."""
        try:
            return find(self.device)
        except InputError:
            return None

    def by_sheet(self) -> "NodeGroup":
        """Return the group with what is left out taken from the device's data sheet, if any."""
        sheet = self.sheet()
        if sheet is None:
            return self
        figures = {
            "memory_gb": sheet.memory_gb * DECIMAL,
            "intra_bandwidth": sheet.link_gb_per_s or sheet.pcie_gb_per_s,
            "inter_bandwidth": NETWORK,
        }
        missing = {name: figures[name] for name in figures if getattr(self, name) is None}
        return msgspec.structs.replace(self, **missing)


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One machine with all its figures resolved (GB/s, MB)."""

    device: str
    devices: int
    memory_mb: float
    intra_bandwidth: float
    inter_bandwidth: float
    host: str = ""
    usd_per_hour: float | None = None
    """Price of a device where the user gives it."""


class Cluster(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A list of node groups, in the user's order."""

    nodes: tuple[NodeGroup, ...]

    def __post_init__(self) -> None:
        """Refuse a cluster without machines, with too many, or with one twice."""
        if not self.nodes:
            raise InputError("cluster.nodes is empty, expected at least one node")
        if self.total_devices() > MOST_DEVICES:
            raise InputError(
                f"cluster.nodes has {self.total_devices():,} devices in all, expected at most"
                f" {MOST_DEVICES:,}; plan for a part of them, and repeat it"
            )

    def machines(self) -> list[Node]:
        """Return every machine, groups expanded, in the user's order."""
        return [
            Node(
                device=group.device,
                devices=group.devices,
                memory_mb=group.fact("memory_gb") * MB_PER_GB,
                intra_bandwidth=group.fact("intra_bandwidth"),
                inter_bandwidth=group.fact("inter_bandwidth"),
                host=group.host_of(number, index),
                usd_per_hour=group.usd_per_hour,
            )
            for number, group in enumerate(self.nodes)
            for index in range(group.count)
        ]

    def by_sheet(self) -> "Cluster":
        """Return the cluster with what its nodes leave out taken from the devices' data sheets."""
        return Cluster(nodes=tuple(group.by_sheet() for group in self.nodes))

    def without(self, hosts: tuple[str, ...]) -> "Cluster":
        """Return the cluster without the nodes of some hosts; all others keep their names.

        Raises:
            InputError: a host is not there, or no node is left.
        """
        if not hosts:
            return self
        named = [
            (group.host_of(number, index), group)
            for number, group in enumerate(self.nodes)
            for index in range(group.count)
        ]
        known = dict(named)
        for host in hosts:
            if host not in known:
                raise InputError(f"cluster.lost: no node is called {host!r}{near(host, known)}")
        left = [(host, group) for host, group in named if host not in hosts]
        if not left:
            raise InputError("cluster.lost: no node is left; name only those that are not there")
        one = (msgspec.structs.replace(group, count=1, host=host) for host, group in left)
        return Cluster(nodes=tuple(one))

    def with_rates(self, factor: float) -> "Cluster":
        """Return the cluster with all its bandwidths times a factor."""
        rates = ("intra_bandwidth", "inter_bandwidth")
        nodes = (
            msgspec.structs.replace(group, **{rate: factor * group.fact(rate) for rate in rates})
            for group in self.nodes
        )
        return Cluster(nodes=tuple(nodes))

    def device_types(self) -> list[str]:
        """Return the distinct device types in order of first appearance."""
        return list(dict.fromkeys(group.device for group in self.nodes))

    def total_devices(self) -> int:
        """Return the number of devices over all machines."""
        return sum(group.count * group.devices for group in self.nodes)

    def chosen(self, machines: tuple[int, ...], node_sequence: tuple[str, ...]) -> list[Node]:
        """Return a plan's machines in rank order; those of its node sequence where it names none.

        Raises:
            InputError: the plan's cluster had more machines.
        """
        every = self.machines()
        if not machines:
            return self.in_sequence(node_sequence)
        if max(machines) >= len(every):
            raise InputError(
                f"the plan uses machine {max(machines)} (from 0), but the cluster has"
                f" {len(every)}; make a plan for this cluster"
            )
        return [every[number] for number in machines]

    def in_sequence(self, node_sequence: tuple[str, ...]) -> list[Node]:
        """Return the machines in rank order: all of the sequence's first type, then the next."""
        machines = self.machines()
        return [node for device in node_sequence for node in machines if node.device == device]
