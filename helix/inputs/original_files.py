"""The original's files of clusters and placements.

`machine_profiles.ini` (what the kinds of machines are), the complete cluster (every machine and
link; input of placement) and `*_sol.ini` (which layers each machine holds). `original_simulator`
and `original_prototype` read and write what placement puts out.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from common.errors import InputError
from helix.inputs.cluster import FIRST, SINK, SOURCE, Cluster, Link, Node, place_name
from helix.inputs.links import Links
from helix.inputs.machine import MachineKind, known_kinds
from helix.inputs.original_ini import Ini, Section, Value, read_ini, short_quantity, written

Printing = Literal["exact", "fake", "partitioned"]

ENDS = {"source": SOURCE, "sink": SINK}
COORDINATOR = {"inbound_nic_speed": "SinkNode", "outbound_nic_speed": "SourceNode"}


class MachineProfiles(msgspec.Struct, frozen=True, kw_only=True):
    """Kinds of machines and the coordinator's card; bytes, bytes per second."""

    kinds: dict[str, MachineKind]
    nic_in: float = 10e9
    nic_out: float = 10e9


def read_machine_profiles(path: Path) -> MachineProfiles:
    """Return what `machine_profiles.ini` says."""
    ini = read_ini(path)
    kinds = {
        name: read_machine(section)
        for name, section in ini.sections.items()
        if name not in COORDINATOR.values()
    }
    if not kinds:
        raise InputError(f"{path}: there is no machine kind in it")
    speeds = {key: ini[name][key].number() for key, name in COORDINATOR.items()}
    for key, name in COORDINATOR.items():
        if speeds[key] <= 0:
            raise ini[name][key].wrong("a speed above 0")
    return MachineProfiles(
        kinds=kinds, nic_in=speeds["inbound_nic_speed"], nic_out=speeds["outbound_nic_speed"]
    )


def read_machine(section: Section) -> MachineKind:
    """Return the machine a section describes."""
    figures = {
        field: section[key].number()
        for field, key in (
            ("vram", "vram_size"),
            ("nic_in", "inbound_nic_speed"),
            ("nic_out", "outbound_nic_speed"),
            ("disk", "disk_speed"),
        )
    }
    try:
        return MachineKind(**figures)
    except InputError as error:
        raise InputError(f"{section.place}: section [{section.name}]: {error}") from error


def write_machine_profiles(profiles: MachineProfiles) -> str:
    """Return the text of `machine_profiles.ini`."""

    def section(kind: MachineKind) -> dict[str, object]:
        return {
            "inbound_nic_speed": short_quantity(kind.nic_in, "gbps"),
            "outbound_nic_speed": short_quantity(kind.nic_out, "gbps"),
            "disk_speed": short_quantity(kind.disk, "gbps"),
            "vram_size": short_quantity(kind.vram, "GB"),
        }

    none = dict.fromkeys(("inbound_nic_speed", "outbound_nic_speed", "disk_speed", "vram_size"), -1)
    source = none | {"outbound_nic_speed": short_quantity(profiles.nic_out, "gbps")}
    sink = none | {"inbound_nic_speed": short_quantity(profiles.nic_in, "gbps")}
    kinds = [(name, section(kind)) for name, kind in profiles.kinds.items()]
    return written([("SourceNode", source), ("SinkNode", sink), *kinds])


def read_cluster(path: Path, profiles: MachineProfiles | None = None) -> Cluster:
    """Return a complete cluster, its links in the file's order, each pair in both directions.

    Kinds are looked up in `profiles`, or else among the shipped ones. Raises InputError where the
    lists of connected nodes and the link sections do not say the same.
    """
    profiles = profiles or MachineProfiles(kinds=known_kinds())
    ini = read_ini(path)
    count = ini["NodeNames"]["total_compute_nodes"].whole(least=1)
    sections = [ini[f"ComputeNode-{index}"] for index in range(count)]
    nodes = tuple(_node(section["type"], profiles.kinds) for section in sections)
    links = _links(ini, count)
    _compare(ini, count, links)
    try:
        return Cluster(
            nodes=nodes, links=Links.of(links), nic_in=profiles.nic_in, nic_out=profiles.nic_out
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _node(value: Value, kinds: Mapping[str, MachineKind]) -> Node:
    kind = value.word()
    if kind not in kinds:
        raise value.wrong(f"one of the kinds {', '.join(kinds)}")
    return Node(kind=kind, machine=kinds[kind])


def _links(ini: Ini, count: int) -> list[Link]:
    places = ENDS | {str(index): FIRST + index for index in range(count)}
    links = list[Link]()
    for name, section in ini.sections.items():
        if not name.startswith("Link-"):
            continue
        ends = name.split("-")[1:]
        if len(ends) != 2 or not all(end in places for end in ends) or ends[0] == ends[1]:
            raise InputError(
                f"{section.place}: [{name}] does not join two of source, sink and 0 to {count - 1}"
            )
        tail, head = (places[end] for end in ends)
        figures = section["bandwidth"].number(), section["latency"].number()
        links.append(Link(tail, head, *figures))
        if tail != SOURCE and head != SINK:
            links.append(Link(head, tail, *figures))
    return links


def _compare(ini: Ini, count: int, links: Iterable[Link]) -> None:
    """Refuse lists of connected nodes that are not what the link sections join."""
    joined: dict[int, set[int]] = {place: set() for place in range(FIRST + count)}
    for link in links:
        joined[link.tail].add(link.head)
        joined[link.head].add(link.tail)
    names = {SOURCE: "SourceNode", SINK: "SinkNode"}
    names |= {FIRST + index: f"ComputeNode-{index}" for index in range(count)}
    for place, name in names.items():
        value = ini[name]["connected_nodes"]
        listed = {
            ENDS.get(item, -1) if isinstance(item, str) else FIRST + item for item in value.items()
        }
        for other in sorted(listed ^ joined[place]):
            have, lacks = ("section", "list") if other in joined[place] else ("list", "section")
            what = place_name(other) if other >= 0 else "an unknown name"
            raise InputError(
                f"{value.place}: [{name}] and {what}: there is a {have} but no {lacks} of this link"
            )


def write_cluster(cluster: Cluster, printing: Printing = "exact") -> str:
    """Return the text of a complete cluster.

    `exact` is read back as the same cluster, regions apart. `fake` and `partitioned` print as the
    original's two generators: whole MB/s above 10 or 100, one decimal above 1, else three; whole
    milliseconds. Raises InputError if a pair's two directions are not equally fast.
    """
    pairs = _pairs(cluster.links)
    around: dict[int, set[int]] = {place: set() for place in range(FIRST + len(cluster.nodes))}
    for link in pairs:
        around[link.tail].add(link.head)
        around[link.head].add(link.tail)
    sections: list[tuple[str, Mapping[str, object]]] = [
        ("NodeNames", {"total_compute_nodes": len(cluster.nodes)}),
        ("SourceNode", {"connected_nodes": _listed(around[SOURCE])}),
        ("SinkNode", {"connected_nodes": _listed(around[SINK])}),
    ]
    for index, node in enumerate(cluster.nodes):
        own = {"type": node.kind, "connected_nodes": _listed(around[FIRST + index])}
        sections.append((f"ComputeNode-{index}", own))
    for link in pairs:
        bandwidth, latency = _printed(link, printing)
        name = f"Link-{place_name(link.tail)}-{place_name(link.head)}"
        sections.append((name, {"bandwidth": bandwidth, "latency": latency}))
    return written(sections)


def _pairs(links: Sequence[Link]) -> list[Link]:
    """Return one link for each pair, the one from the lower index, in the order of the first."""
    pairs = dict[tuple[int, int], Link]()
    for link in links:
        outer = link.tail == SOURCE or link.head == SINK
        turned = not outer and link.tail > link.head
        tail, head = (link.head, link.tail) if turned else (link.tail, link.head)
        same = Link(tail, head, link.bandwidth, link.latency)
        if pairs.setdefault((tail, head), same) != same:
            raise InputError(
                f"link {place_name(tail)} to {place_name(head)}: "
                "the original's file has one figure for both directions"
            )
    return list(pairs.values())


def _listed(places: Iterable[int]) -> list[str | int]:
    """Return connected nodes as the original lists them: source, indices, sink."""
    rank = {SOURCE: -1.0, SINK: float("inf")}
    ordered = sorted(places, key=lambda place: rank.get(place, place))
    return [place_name(p) if p in rank else p - FIRST for p in ordered]


def _printed(link: Link, printing: Printing) -> tuple[str, str]:
    if printing == "exact":
        return short_quantity(link.bandwidth, "mbps"), short_quantity(link.latency, "MilliSec")
    whole_above = {"fake": 10.0, "partitioned": 100.0}[printing]
    speed = link.bandwidth / 1e6
    digits = 0 if speed > whole_above else 1 if speed > 1 else 3
    printed = str(int(speed)) if digits == 0 else f"{speed:.{digits}f}"
    return f"{printed} * mbps", f"{round(link.latency / 0.001)} * MilliSec"


def read_solution(path: Path) -> tuple[tuple[int, int], ...]:
    """Return half-open runs of layers by node index, (0, 0) where a machine is unused."""
    ini = read_ini(path)
    offset = ini["Settings"]["offset"].whole()
    values = ini["Solution"].values
    if not values:
        raise InputError(f"{path}: section [Solution] names no machine")
    names = [f"compute_node_{index + offset}" for index in range(len(values))]
    for name in values:
        if name not in names:
            raise values[name].wrong(f"the machines {names[0]} to {names[-1]}, each once")
    return tuple(_run(values[name]) for name in names)


def _run(value: Value) -> tuple[int, int]:
    layers = value.wholes()
    if not layers:
        return 0, 0
    if layers != list(range(layers[0], layers[0] + len(layers))):
        raise value.wrong("layers in a row")
    return layers[0], layers[-1] + 1


def write_solution(intervals: Sequence[tuple[int, int]]) -> str:
    """Return the text of a `*_sol.ini`."""
    runs: dict[str, object] = {
        f"compute_node_{index + FIRST}": list(range(start, end))
        for index, (start, end) in enumerate(intervals)
    }
    return written([("Settings", {"offset": FIRST}), ("Solution", runs)]).removesuffix("\n")
