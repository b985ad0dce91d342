"""What each machine contributes: the flow that is left without it, all others as they are."""

from collections.abc import Sequence

import numpy as np

from helix.inputs.cluster import FIRST, SOURCE
from helix.plan.flow_graph import BEGIN, FINISH, network
from helix.plan.max_flow import max_flow
from helix.plan.placement import UNUSED
from helix.plan.plans import Service, Without
from helix.plan.question import Question
from helix.plan.throughput import throughput

MOST = 2_000_000  # machines times links; a second or so


def without_each(question: Question, services: Sequence[Service]) -> tuple[Without, ...] | None:
    """Return what is left without each machine in use; None: too many to compute it for all.

    The layers stay where they are and the maximum flow is found anew, as routing does when a
    machine is lost. Services beyond their profile have no flow and are left out.
    """
    able = [one for one in services if one.flow > 0]
    if sum(len(one.machines) * len(one.routes) for one in able) > MOST:
        return None
    total = sum(one.flow for one in able)
    return tuple(
        Without(one.machines[index], total - one.flow + flow)
        for one in able
        for index, flow in _left(question, one)
    )


def _left(question: Question, one: Service) -> list[tuple[int, float]]:
    """Return, by index in the service, the flow without a machine."""
    part, placement = one.part(question.cluster), one.placement(question.cluster)
    speed = throughput(question.model, question.profiles, part.kind_counts())
    net = network(part, question.model, placement, speed)
    first = len(net.tails) - net.links
    outward = [n for n, link in enumerate(placement.links, first) if link.tail == SOURCE]
    found = list[tuple[int, float]]()
    for index, run in enumerate(one.intervals):
        if run == UNUSED:
            continue
        place = index + FIRST
        gone = [n for n, x in enumerate(placement.links, first) if place in (x.tail, x.head)]
        capacities = net.capacities.copy()
        capacities[gone] = 0.0
        flow = max_flow(net.vertices, net.tails, net.heads, capacities, BEGIN, FINISH)
        found.append((index, float(np.sum(flow[outward]))))
    return found
