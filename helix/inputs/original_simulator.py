"""The original's `simulator_cluster.ini`: what placement gives to the simulator.

The machines with their KV capacity, and the directed links in use; a link's number is its place
in the list of names. Which layers a machine holds stands in `*_sol.ini`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from common.errors import InputError
from helix.inputs.cluster import FIRST, SINK, SOURCE, Cluster, Link, Node
from helix.inputs.links import Links
from helix.inputs.original_files import read_machine
from helix.inputs.original_ini import Ini, Value, quantity, read_ini, written

KINDS = ("T4", "T4x2", "T4x4", "L4", "L4x2", "V100", "A100")  # listed in every file of the original


class SimulatorCluster(msgspec.Struct, frozen=True, kw_only=True):
    """Machines and the links in use, in their order; `kv_entries` (tokens times layers) by node."""

    cluster: Cluster
    kv_entries: tuple[int, ...]


def read_simulator_cluster(path: Path) -> SimulatorCluster:
    """Return what a `simulator_cluster.ini` says."""
    ini = read_ini(path)
    names = ini["ComputeNodes"]["names"].names()
    kinds = ini["MachineTypes"]["types"].names()
    places = {"source": SOURCE, "sink": SINK} | {n: FIRST + i for i, n in enumerate(names)}
    coordinator = ini["Coordinator"]
    links = ini["Links"]["names"].names()
    try:
        cluster = Cluster(
            nodes=tuple(_node(ini, name, kinds) for name in names),
            links=Links.of([_link(ini, name, places) for name in links]),
            nic_in=coordinator["inbound_nic_speed"].number(),
            nic_out=coordinator["outbound_nic_speed"].number(),
        )
    except InputError as error:
        message = str(error)
        raise InputError(
            message if message.startswith(str(path)) else f"{path}: {message}"
        ) from error
    return SimulatorCluster(
        cluster=cluster, kv_entries=tuple(ini[name]["kv_cache_capacity"].whole() for name in names)
    )


def _node(ini: Ini, name: str, kinds: Sequence[str]) -> Node:
    section = ini[name]
    kind = section["machine_type"].word()
    if kind not in kinds:
        raise section["machine_type"].wrong(f"one of the listed types {', '.join(kinds)}")
    return Node(kind=kind, machine=read_machine(section))


def _link(ini: Ini, name: str, places: Mapping[str, int]) -> Link:
    section = ini[name]
    ends = [_place(section[key], places) for key in ("in", "out")]
    return Link(ends[0], ends[1], section["bandwidth"].number(), section["latency"].number())


def _place(value: Value, places: Mapping[str, int]) -> int:
    if value.text not in places:
        raise value.wrong("source, sink or the name of a compute node")
    return places[value.text]


def write_simulator_cluster(
    cluster: Cluster, links: Sequence[Link], kv_entries: Sequence[int], compat: bool = False
) -> str:
    """Return the text of a `simulator_cluster.ini` with the links of a placement.

    `compat` prints latencies as the original, times 1000: 59 ms become 59.00000000000001 and are
    read back a bit longer (by the last one). Else everything is read back as it was.
    """
    coordinator: dict[str, object] = {
        "inbound_nic_speed": quantity(cluster.nic_in, "mbps"),
        "outbound_nic_speed": quantity(cluster.nic_out, "mbps"),
    }
    names = [_name(FIRST + index) for index in range(len(cluster.nodes))]
    kinds = list(dict.fromkeys([*KINDS, *(node.kind for node in cluster.nodes)]))
    machines = [
        (name, _machine(node, entries))
        for name, node, entries in zip(names, cluster.nodes, kv_entries, strict=True)
    ]
    return written(
        [
            ("Coordinator", coordinator),
            ("MachineTypes", {"types": kinds}),
            ("ComputeNodes", {"names": names}),
            *machines,
            ("Links", {"names": [_link_name(link) for link in links]}),
            *((_link_name(link), _link_figures(link, compat)) for link in links),
        ]
    )


def _machine(node: Node, kv_entries: int) -> dict[str, object]:
    return {
        "vram_size": quantity(node.machine.vram, "MB"),
        "inbound_nic_speed": quantity(node.machine.nic_in, "mbps"),
        "outbound_nic_speed": quantity(node.machine.nic_out, "mbps"),
        "disk_speed": quantity(node.machine.disk, "mbps"),
        "machine_type": f'"{node.kind}"',
        "kv_cache_capacity": kv_entries,
        "activation_backup_capacity": 0,
    }


def _link_figures(link: Link, compat: bool) -> dict[str, object]:
    milliseconds = f"{link.latency * 1000} * MilliSec"
    return {
        "in": _name(link.tail),
        "out": _name(link.head),
        "latency": milliseconds if compat else quantity(link.latency, "MilliSec"),
        "bandwidth": quantity(link.bandwidth, "mbps"),
    }


def _name(place: int) -> str:
    return {SOURCE: "source", SINK: "sink"}.get(place, f"compute_node_{place}")


def _link_name(link: Link) -> str:
    return f"link_{_name(link.tail)}_{_name(link.head)}"
