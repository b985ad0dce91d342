"""One placement again and again: for clusters too large to be searched as a whole.

A pod is a part of the devices with as large a part of the requests; what is found for it is put
side by side, and played as one on all requests.
"""

from collections.abc import Iterator

import msgspec
import numpy as np

from beta.inputs.workload import Workload
from beta.plan.placement import Placement, packed
from beta.plan.problem import Problem, Scored, score
from beta.plan.search import cuts_filled

MOST_CUT = 2e9
"""Looks at a replica by a request that filling one cut may take: some seconds of a core."""


def looks(problem: Problem) -> float:
    """Return about how often a request looks at a replica while a cut is filled.

    Every replica that is added has the requests played, each looking at its model's replicas.
    """
    weights = [
        min(record.memory_bytes * config.devices for config, record in m.profile.records.items())
        for m in problem.models
    ]
    known = [weight for weight in weights if np.isfinite(weight)]
    if not known:
        return 0.0
    devices, models = problem.cluster.devices, len(problem.models)
    held = min(problem.cluster.memory_bytes / max(float(np.mean(known)), 1.0), models)
    replicas = devices * held
    return replicas * len(problem.train) * (1 + replicas / models / 2)


def side_by_side(problem: Problem) -> Iterator[Scored]:
    """Yield the cuts of a pod, filled, as often as the devices hold it."""
    cluster, parts = problem.cluster, 2
    while looks(pod := _part(problem, parts)) > MOST_CUT and pod.cluster.devices > 1:
        parts *= 2
    copies = cluster.devices // pod.cluster.devices
    for found in cuts_filled(pod):
        placement = Placement(found.placement.groups * copies)
        if packed(placement, cluster) is not None:
            whole = score(problem, placement)
            simulations, walked = found.simulations + 1, found.walked + len(problem.train)
            yield whole._replace(simulations=simulations, walked=walked)


def _part(problem: Problem, parts: int) -> Problem:
    """Return a pod: whole nodes where it is larger than one, and every n-th request of n parts."""
    per_node, train = problem.cluster.devices_per_node, problem.train
    devices = max(problem.cluster.devices // parts, 1)
    if devices > per_node:
        devices -= devices % per_node
    cluster = msgspec.structs.replace(problem.cluster, devices=devices)
    return problem._replace(
        cluster=cluster, train=Workload(train.arrival[::parts], train.model[::parts])
    )
