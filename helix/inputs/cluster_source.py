"""The cluster as an experiment names it: machines in regions and the links between them."""

import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import msgspec

from common.errors import InputError
from helix.inputs.cluster import FIRST, SINK, SOURCE, Cluster, Node, both_ways, place_name
from helix.inputs.generate import CLUSTERS
from helix.inputs.machine import MachineKind, known_kinds

COORDINATOR = "coordinator"
BITS = 8.0

Pair = tuple[int, int]


class MachineGroup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """So many machines of one kind in one region."""

    kind: str
    count: int = 1
    region: str = ""

    def __post_init__(self) -> None:
        """Refuse empty groups."""
        if self.count < 1:
            raise InputError(f"cluster.machines: {self.count} x {self.kind!r}, expected 1 or more")


class LinkSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a link carries each way, and the two ends it is between.

    An end is a region, the coordinator, or a machine by its number. With one end, or two equal
    ones, the link is between the machines of that region. `gbit_per_s` 0: there is no such link.
    """

    between: tuple[str, ...] = ()
    gbit_per_s: float = 10.0
    latency_ms: float = 1.0

    def __post_init__(self) -> None:
        """Refuse figures that no link has."""
        what = f"link {' - '.join(self.between) or 'by default'}"
        if len(self.between) > 2:
            raise InputError(f"{what}: a link is between two ends")
        if not 0 <= self.gbit_per_s < math.inf:
            raise InputError(f"{what}: gbit_per_s is {self.gbit_per_s}, expected 0 or more")
        if not 0 <= self.latency_ms < math.inf:
            raise InputError(f"{what}: latency_ms is {self.latency_ms}, expected 0 or more")


class ClusterSource(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A shipped cluster by name, the original's INI file, or machines, regions and links.

    The coordinator stands in `coordinator_region`, or by itself if that is empty. A pair of
    machines takes the last of `links` that is between them, else `default_link`.
    """

    named: str = ""
    file: str = ""
    machines: tuple[MachineGroup, ...] = ()
    coordinator_region: str = ""
    default_link: LinkSource = LinkSource()
    links: tuple[LinkSource, ...] = ()
    kinds: dict[str, MachineKind] = {}
    bandwidth_scale: float = 1.0
    """Factor on what links and network cards carry: what if the network were slower or faster."""

    def __post_init__(self) -> None:
        """Refuse none and several sources, and links to nowhere."""
        if bool(self.named) + bool(self.file) + bool(self.machines) != 1:
            raise InputError(
                "cluster: expected one of cluster.named, cluster.file and [[cluster.machines]]"
            )
        if self.named and self.named not in CLUSTERS:
            raise InputError(
                f"cluster.named is {self.named!r}, expected one of {', '.join(CLUSTERS)}"
            )
        if not 0 < self.bandwidth_scale < math.inf:
            raise InputError(f"cluster.bandwidth_scale is {self.bandwidth_scale}, expected above 0")
        if not self.machines:
            return
        regions, count = self._regions(), sum(group.count for group in self.machines)
        for link in self.links:
            for end in link.between:
                if end.isdigit() and int(end) < count:
                    continue
                if end not in (*regions, COORDINATOR):
                    raise InputError(
                        f"link {' - '.join(link.between)}: no end {end!r}; expected a region"
                        f" ({', '.join(filter(None, regions)) or 'there are none'}),"
                        f" {COORDINATOR!r} or a machine's number below {count}"
                    )

    def load(self) -> Cluster:
        """Return the cluster."""
        cluster, scale = self._load(), self.bandwidth_scale
        if scale == 1.0:
            return cluster
        links = [msgspec.structs.replace(x, bandwidth=x.bandwidth * scale) for x in cluster.links]
        return msgspec.structs.replace(
            cluster,
            links=tuple(links),
            nic_in=cluster.nic_in * scale,
            nic_out=cluster.nic_out * scale,
        )

    def _load(self) -> Cluster:
        if self.named:
            return CLUSTERS[self.named]()
        if self.file:
            from helix.inputs.original_files import read_cluster

            return read_cluster(Path(self.file))
        nodes = [node for group in self.machines for node in self._nodes(group)]
        pairs = list[tuple[int, int, float, float]]()
        for tail, head in _pairs(len(nodes)):
            link = self._between(nodes, (tail, head))
            if link.gbit_per_s > 0:
                speed = link.gbit_per_s * 1e9 / BITS
                pairs.append((tail, head, speed, link.latency_ms / 1e3))
        return Cluster(nodes=tuple(nodes), links=both_ways(pairs, len(nodes)))

    def _nodes(self, group: MachineGroup) -> list[Node]:
        known = {**known_kinds(), **self.kinds}
        # What the profile says decides the placement; a kind's own memory is only informative.
        machine = known.get(group.kind, MachineKind(vram=1.0))
        node = Node(kind=group.kind, region=group.region, machine=machine)
        return [node] * group.count

    def _regions(self) -> list[str]:
        return list(dict.fromkeys(group.region for group in self.machines))

    def _between(self, nodes: Sequence[Node], pair: Pair) -> LinkSource:
        chosen = self.default_link
        for link in self.links:
            if self._meets(nodes, link, pair):
                chosen = link
        return chosen

    def _meets(self, nodes: Sequence[Node], link: LinkSource, pair: Pair) -> bool:
        first, second = (self._names(nodes, place) for place in pair)
        ends = link.between * 2 if len(link.between) == 1 else link.between
        if not ends:
            return True
        return (ends[0] in first and ends[1] in second) or (ends[1] in first and ends[0] in second)

    def _names(self, nodes: Sequence[Node], place: int) -> set[str]:
        if place in (SOURCE, SINK):
            return {COORDINATOR, self.coordinator_region} - {""}
        return {place_name(place), nodes[place - FIRST].region}


def _pairs(nodes: int) -> list[Pair]:
    places = range(FIRST, FIRST + nodes)
    source = [(SOURCE, place) for place in places]
    return [*source, *((place, SINK) for place in places), *combinations(places, 2)]
