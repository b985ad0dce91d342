"""Plans to start from: the best with equal stages on each device type alone."""

from collections.abc import Iterator

import msgspec

from metis.inputs.cluster import Cluster
from metis.plan.cells import Found
from metis.plan.homogeneous import best_uniform
from metis.plan.problem import Problem


def uniform_starts(problem: Problem) -> Iterator[Found]:
    """Yield what the estimator for clusters of one type finds on each type's nodes."""
    machines = problem.cluster.machines()
    for device in problem.node_types:
        nodes = tuple(group for group in problem.cluster.nodes if group.device == device)
        alone = msgspec.structs.replace(problem, cluster=Cluster(nodes=nodes), node_types=(device,))
        found = best_uniform(alone)
        if found is not None:
            yield Found(found, tuple(n for n, node in enumerate(machines) if node.device == device))
