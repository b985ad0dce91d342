"""What has to move when a running job changes to another plan, and who best sits where.

A node needs what its ranks hold under the new plan. What its ranks held under the old one stays in
place and counts zero, as does what moves between devices of a node. The rest comes once to a node,
from the node that sends least so far of those that hold it; from the last checkpoint where none of
them is left.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from metis.inputs.cluster import Cluster
from metis.plan.change import Change
from metis.plan.lines import runs
from metis.plan.plans import Plan, placed
from metis.plan.seats import cheapest_seats
from metis.plan.state import Bytes, held, kinds, pieces

Flags = NDArray[np.bool_]


class Moves(NamedTuple):
    """Bytes that move; machines by their number in the cluster."""

    between: dict[tuple[int, int], float]
    """From one machine to another."""
    stored: dict[int, float]
    """To a machine from the last checkpoint, as no node that is left holds it."""

    @property
    def total(self) -> float:
        """Bytes between nodes."""
        return sum(self.between.values())

    @property
    def lost(self) -> float:
        """Bytes that only a checkpoint has."""
        return sum(self.stored.values())

    def received(self) -> dict[int, float]:
        """Return what each machine receives from others."""
        return _summed(self.between, 1)

    def sent(self) -> dict[int, float]:
        """Return what each machine sends."""
        return _summed(self.between, 0)


def _summed(between: dict[tuple[int, int], float], end: int) -> dict[int, float]:
    found = defaultdict[int, float](float)
    for pair, size in between.items():
        found[pair[end]] += size
    return found


class _Piece(NamedTuple):
    """Pieces of one kind: their bytes, who holds them (machine), who needs them (position)."""

    sizes: NDArray[np.float64]
    holds: Flags
    needs: Flags


class Migration:
    """The change from a running plan to another one of the same model on the cluster of now."""

    def __init__(self, change: Change, after: Plan, cluster: Cluster, each: Bytes) -> None:
        self.change, self.cluster = change, cluster
        self.after = _seated(after, cluster)
        machines = cluster.machines()
        nodes = [machines[m].devices for m in self.after.machines]
        old = [node.devices for node in change.before.nodes]
        there = [(n, m) for n, m in enumerate(change.machines) if m is not None]
        self.pieces = list[_Piece]()
        for kind in kinds(change.before, self.after, after.model, each):
            borders, sharded = pieces(kind), kind.sharded
            holds = np.zeros((len(machines), len(borders) - 1), dtype=np.bool_)
            had = held(old, kind.before, borders, sharded=sharded)
            for node, machine in there:
                holds[machine] = had[node]
            needs = held(nodes, kind.after, borders, sharded=sharded)
            self.pieces.append(_Piece(kind.size * np.diff(borders), holds, needs))

    def cheapest(self) -> Plan:
        """Return the plan with equal nodes seated so that least has to come to them."""
        missing = sum(p.needs @ (p.sizes * ~p.holds).T for p in self.pieces)
        assert isinstance(missing, np.ndarray), "a model has layers"
        machines = list(self.after.machines)
        for run in runs(self.cluster):
            seats = [seat for seat, m in enumerate(self.after.machines) if m in run.machines]
            guests = cheapest_seats(missing[np.ix_(seats, run.machines)]) if seats else []
            for seat, guest in zip(seats, guests, strict=True):
                machines[seat] = run.machines[guest]
        plan = msgspec.structs.replace(self.after, machines=tuple(machines))
        return placed(plan, self.cluster)

    def moves(self, machines: Sequence[int]) -> Moves:
        """Return what moves where the plan's nodes are these machines, in rank order."""
        between = defaultdict[tuple[int, int], float](float)
        stored = defaultdict[int, float](float)
        sent = np.zeros(len(self.cluster.machines()))
        for piece in self.pieces:
            wants = piece.needs & ~piece.holds[list(machines)]
            for number in np.flatnonzero(wants.any(axis=0)):
                size = float(piece.sizes[number])
                sources = np.flatnonzero(piece.holds[:, number])
                for seat in np.flatnonzero(wants[:, number]).tolist():
                    to = machines[seat]
                    if not len(sources):
                        stored[to] += size
                        continue
                    source = int(sources[np.argmin(sent[sources])])
                    sent[source] += size
                    between[source, to] += size
        return Moves(dict(between), dict(stored))


def _seated(plan: Plan, cluster: Cluster) -> Plan:
    """Return the plan with its machines named: all in the node sequence's order where it is not."""
    if plan.machines:
        return plan
    numbered = list(enumerate(cluster.machines()))
    order = [n for device in plan.node_sequence for n, node in numbered if node.device == device]
    return msgspec.structs.replace(plan, machines=tuple(order))
