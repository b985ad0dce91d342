"""The cluster as an experiment names it: machines in regions and the links between them."""

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from helix.inputs.cluster import FIRST, SINK, SOURCE, Cluster, Node
from helix.inputs.generate import CLUSTERS
from helix.inputs.links import Links
from helix.inputs.machine import MachineKind, known_kinds

COORDINATOR = "coordinator"
BITS = 8.0
MOST = 10_000  # machines of one group
MOST_TOGETHER = 4_000  # machines of a cluster: every two are linked both ways, 16 million links

Places = NDArray[np.int64]


class MachineGroup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """So many machines of one kind in one region."""

    kind: str
    """A kind that the profile knows: A100, L4, T4, ... or one of [profile.kinds]."""
    count: int = 1
    """Machines of this kind and region."""
    region: str = ""
    """Any name; links are given between regions."""

    def __post_init__(self) -> None:
        """Refuse empty groups."""
        if not 1 <= self.count <= MOST:
            raise InputError(
                f"cluster.machines: {self.count:.6g} x {self.kind!r}, expected 1 to {MOST:,}"
            )


class LinkSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a link carries each way, and the two ends it is between.

    An end is a region, the coordinator, or a machine by its number. With one end, or two equal
    ones, the link is between the machines of that region. `gbit_per_s` 0: there is no such link.
    """

    between: tuple[str, ...] = ()
    """The two ends: regions, "coordinator", or machines by number from "0"."""
    gbit_per_s: float = 10.0
    """Each way; 0: there is no such link."""
    latency_ms: float = 1.0
    """One way."""

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
    """A cluster of the paper: single24, geo24, het42 or quality10."""
    file: str = ""
    """A cluster file of the original (INI)."""
    machines: tuple[MachineGroup, ...] = ()
    coordinator_region: str = ""
    """Region of the coordinator; empty: one of its own."""
    default_link: LinkSource = LinkSource()
    """Between machines that none of `links` is between."""
    links: tuple[LinkSource, ...] = ()
    """The last that fits a pair of machines counts."""
    kinds: dict[str, MachineKind] = {}
    """Memory and network cards of kinds that are not in helix/data/machines.toml."""
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
        if self.machines:
            self._check_ends()

    def _check_ends(self) -> None:
        regions, count = self._regions(), sum(group.count for group in self.machines)
        if count > MOST_TOGETHER:
            raise InputError(
                f"cluster.machines: {count:,} machines, expected {MOST_TOGETHER:,} at most; plan"
                " for a part of them"
            )
        here = self.coordinator_region
        if here and here not in regions:
            raise InputError(
                f"cluster.coordinator_region is {here!r}, but the machines stand in"
                f" {', '.join(filter(None, regions)) or 'no region'}; name one of these, or leave"
                " it empty for a region of its own"
            )
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
        return msgspec.structs.replace(
            cluster,
            links=cluster.links.scaled(scale),
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
        tails, heads = _pairs(len(nodes))
        sources = (self.default_link, *self.links)
        chosen = self._chosen(nodes, tails, heads)
        speeds = np.array([link.gbit_per_s * 1e9 / BITS for link in sources])[chosen]
        waits = np.array([link.latency_ms / 1e3 for link in sources])[chosen]
        links = Links(tails, heads, speeds, waits).which(speeds > 0)
        return Cluster(nodes=tuple(nodes), links=links)

    def _nodes(self, group: MachineGroup) -> list[Node]:
        known = {**known_kinds(), **self.kinds}
        # What the profile says decides the placement; a kind's own memory is only informative.
        machine = known.get(group.kind, MachineKind(vram=1.0))
        node = Node(kind=group.kind, region=group.region, machine=machine)
        return [node] * group.count

    def _regions(self) -> list[str]:
        return list(dict.fromkeys(group.region for group in self.machines))

    def _chosen(self, nodes: Sequence[Node], tails: Places, heads: Places) -> NDArray[np.int64]:
        """Return the last of `links` that is between two places, from 1; 0: the default."""
        chosen = np.zeros(len(tails), np.int64)
        for number, link in enumerate(self.links, 1):
            ends = link.between * 2 if len(link.between) == 1 else link.between
            if not ends:
                chosen[:] = number
                continue
            one, other = (self._named(nodes, end) for end in ends)
            met = (one[tails] & other[heads]) | (other[tails] & one[heads])
            chosen[met] = number
        return chosen

    def _named(self, nodes: Sequence[Node], end: str) -> NDArray[np.bool_]:
        """Return which places an end of a link is: by region, as the coordinator, by number."""
        here = end in {COORDINATOR, self.coordinator_region} - {""}
        machines = [end in (str(index), node.region) for index, node in enumerate(nodes)]
        return np.array([here, here, *machines])


def _pairs(nodes: int) -> tuple[Places, Places]:
    """Return tails and heads: from the coordinator, to it, then each two machines both ways."""
    places = np.arange(FIRST, FIRST + nodes)
    one, other = (places[indices] for indices in np.triu_indices(nodes, 1))
    tails = np.concatenate([np.full(nodes, SOURCE), places, np.stack([one, other], 1).ravel()])
    heads = np.concatenate([places, np.full(nodes, SINK), np.stack([other, one], 1).ravel()])
    return tails, heads
