"""What times are predicted with: a device's constants, its node, and the bytes of numbers."""

from collections.abc import Sequence
from typing import NamedTuple

from puzzle.inputs.cluster import GB, Cluster, Constants
from puzzle.inputs.experiment import Experiment
from puzzle.inputs.layout import Layout
from puzzle.inputs.precision import HALVES, Kinds, kinds_of
from puzzle.inputs.savings import NONE, Savings
from puzzle.plan.plans import Plan


class Rates(NamedTuple):
    """A device's constants, and what they are applied to."""

    c: Constants
    node: int = 0
    """Devices of a node; 0: all are on one."""
    kinds: Kinds = HALVES
    summed: int = 2
    """Bytes of a gradient when replicas are summed: the original's halves, else the main one's."""
    critic_learns: bool = True
    """Whether there is a critic that is trained, and asked for values."""
    savings: Savings = NONE

    @property
    def between(self) -> float:
        """Bytes/s of a device's large messages to other nodes, of a switch."""
        return GB * (self.c.between_gbps or self.c.gather_gbps)

    def hop(self, crosses: bool) -> float:
        """Return the bytes/s between neighbouring stages."""
        slowest = self.c.between_gbps if crosses and self.c.between_gbps else self.c.p2p_gbps
        return GB * min(self.c.p2p_gbps, slowest)

    def crossings(self, layout: Layout) -> tuple[bool, ...]:
        """Say of each stage whether a rank of it has its successor on another node."""
        step = layout.data * layout.tensor
        firsts = range(0, layout.world - step, step)
        found = [any(self.apart(r, r + step) for r in range(f, f + step)) for f in firsts]
        return (*found, False)

    def replicas_cross(self, layout: Layout) -> bool:
        """Say whether replicas of a stage are on several nodes."""
        step = layout.data * layout.tensor
        firsts = range(0, layout.world, step)
        return any(self.apart(first, first + step - 1) for first in firsts)

    def apart(self, one: int, two: int) -> bool:
        """Say whether two ranks are on different nodes."""
        return bool(self.node) and one // self.node != two // self.node


def rates_of(plan: Plan, cluster: Cluster) -> Rates:
    """Return what a plan's times are predicted with."""
    kinds = kinds_of(plan.dtype)
    summed = kinds.weight if plan.released else kinds.main
    node, learns, savings = plan.devices_per_node, plan.critic_learns, plan.choice.savings
    return Rates(cluster.constants, node, kinds, summed, learns, savings)


def rates_for(experiment: Experiment) -> Rates:
    """Return what the times of an experiment's plans are predicted with, nothing saved."""
    machines, kinds = experiment.machines, kinds_of(experiment.dtype)
    node, learns = machines.devices_per_node, experiment.critic_learns
    return Rates(machines.constants, node, kinds, kinds.main, learns)


def stages_cross(crossings: Sequence[bool], stage: int) -> tuple[bool, bool]:
    """Say whether a stage's forward and its backward message go to another node."""
    return crossings[stage], stage > 0 and crossings[stage - 1]
