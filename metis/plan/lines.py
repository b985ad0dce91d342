"""The strict space: which nodes are used, in which order, and which device groups form stages.

A run is a row of equal nodes of one type in the user's order. A line is one order of the runs; a
plan along it uses any number of nodes of every run and leaves the rest idle, so that every subset
of nodes counts once. A stage is a contiguous group of the devices that are used.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, permutations
from typing import NamedTuple

from metis.inputs.cluster import Cluster, Node
from metis.plan.ranks import Rank, Ranks

MOST_RUNS = 4
"""Runs whose every order is a line; of more only the device types change places."""

EVERY_SIZE = 32
"""Devices up to which a stage has any size; beyond, see `sizes_from`."""

EVERY_COUNT = 64
"""Nodes of a run up to which a stage takes any number of them."""


JOINED = 8
"""Nodes of a run up to which a stage that stands on other runs too takes any number of them."""


class Sizes(NamedTuple):
    """The only sizes that groups have on each run: devices by the run's number."""

    alone: Mapping[int, frozenset[int]]
    joined: Mapping[int, frozenset[int]]
    """Of those that also stand on other runs: whole nodes."""


class Run(NamedTuple):
    """Equal nodes that stand side by side in the user's order of a type."""

    number: int
    node: Node
    machines: tuple[int, ...]
    """Their numbers in `Cluster.machines()`."""

    @property
    def devices(self) -> int:
        """Devices of all its nodes."""
        return len(self.machines) * self.node.devices


class Shape(NamedTuple):
    """A device group: where in its first node it begins, and how many devices of which runs."""

    offset: int
    parts: tuple[tuple[int, int], ...]
    """(run, devices); all but the last end at a node's border."""

    @property
    def devices(self) -> int:
        """Devices of the group."""
        return sum(count for _, count in self.parts)


def runs(cluster: Cluster) -> list[Run]:
    """Return the runs of a cluster, type by type in order of first appearance."""
    machines, found = cluster.machines(), list[Run]()
    for device in cluster.device_types():
        numbered = [(n, node) for n, node in enumerate(machines) if node.device == device]
        for _, same in groupby(numbered, key=lambda pair: _facts(pair[1])):
            members = list(same)
            found.append(Run(len(found), members[0][1], tuple(n for n, _ in members)))
    return found


def _facts(node: Node) -> tuple[object, ...]:
    figures = node.devices, node.memory_mb, node.intra_bandwidth, node.inter_bandwidth
    return *figures, node.usd_per_hour


def orders(found: Sequence[Run]) -> Iterator[tuple[Run, ...]]:
    """Yield every order of a few runs, or else every order of the device types."""
    if len(found) <= MOST_RUNS:
        yield from permutations(found)
        return
    types = dict.fromkeys(run.node.device for run in found)
    for sequence in permutations(types):
        yield tuple(run for device in sequence for run in found if run.node.device == device)


def sizes_from(run: Run, offset: int, devices: int) -> list[int]:
    """Return the sizes of groups that begin `offset` devices into a node of a run.

    All of them on a cluster of up to `EVERY_SIZE` devices. On a larger one: every size inside the
    node; from its border whole nodes (any number up to `EVERY_COUNT`, then halves and thirds of
    powers of two, and all); and powers of two.
    """
    size, most = run.node.devices, run.devices - offset
    if devices <= EVERY_SIZE:
        return list(range(1, most + 1))
    allowed = set(range(1, size - offset + 1)) | {1 << k for k in range(most.bit_length())}
    if offset == 0:
        allowed |= {count * size for count in node_counts(run)}
    return sorted(s for s in allowed if s <= most)


def node_counts(run: Run) -> list[int]:
    """Return how many whole nodes of a run a large group may take."""
    count = len(run.machines)
    if count <= EVERY_COUNT:
        return list(range(1, count + 1))
    powers = [1 << k for k in range(count.bit_length())]
    return sorted({c for p in powers for c in (p, 3 * p) if c <= count} | {count})


def joined_counts(run: Run) -> list[int]:
    """Return how many whole nodes of a run a group takes that also stands on other runs."""
    count = len(run.machines)
    if count <= JOINED:
        return list(range(1, count + 1))
    return sorted({1 << k for k in range(count.bit_length())} | {count})


def shapes_from(
    order: Sequence[Run], at: int, offset: int, devices: int, only: Sizes | None = None
) -> Iterator[Shape]:
    """Yield the groups that begin `offset` devices into a node of the order's run number `at`."""
    run = order[at]
    for size in sizes_from(run, offset, devices) if only is None else _only(run, offset, only):
        yield Shape(offset, ((run.number, size),))
    every = devices <= EVERY_SIZE and only is None
    if not every and offset:
        return
    for whole in _wholes(run, only):
        for parts in _joined(order, at, ((run.number, whole - offset),), only, every):
            yield Shape(offset, parts)


def _only(run: Run, offset: int, only: Sizes) -> list[int]:
    """Return the sizes that a group of a run is to have; from inside a node it ends there."""
    most = run.node.devices - offset if offset else run.devices
    return sorted(size for size in only.alone[run.number] if size <= most)


def _wholes(run: Run, only: Sizes | None) -> list[int]:
    """Return the devices of the whole nodes of a run that a group takes beside other runs."""
    if only is not None:
        return sorted(only.joined[run.number])
    return [count * run.node.devices for count in joined_counts(run)]


def _joined(
    order: Sequence[Run],
    at: int,
    taken: tuple[tuple[int, int], ...],
    only: Sizes | None,
    every: bool,
) -> Iterator[tuple[tuple[int, int], ...]]:
    """Yield what goes on from whole nodes of one run into later ones."""
    for later in range(at + 1, len(order)):
        run = order[later]
        whole = _wholes(run, only)
        for size in range(1, run.devices + 1) if every else whole:
            yield (*taken, (run.number, size))
            if size in whole:
                yield from _joined(order, later, (*taken, (run.number, size)), only, every)


def ranks_of(nodes: Sequence[Node]) -> Ranks:
    """Return the placement on nodes in the order given."""
    types = tuple(dict.fromkeys(node.device for node in nodes))
    ranks = tuple(
        Rank(node.device, index, node.memory_mb)
        for index, node in enumerate(nodes)
        for _ in range(node.devices)
    )
    return Ranks(types, tuple(nodes), ranks)


def nodes_of(shape: Shape, found: Sequence[Run]) -> list[Node]:
    """Return the nodes that a group stands on."""
    nodes, offset = list[Node](), shape.offset
    for number, devices in shape.parts:
        node = found[number].node
        nodes += [node] * -(-(offset + devices) // node.devices)
        offset = 0
    return nodes
