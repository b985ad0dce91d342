"""Compile what planning runs, before time is counted; from the cache it takes a moment."""

import numpy as np

from helix.inputs.cluster import FIRST, SINK, SOURCE, Cluster, Node
from helix.inputs.links import Links
from helix.inputs.machine import MachineKind
from helix.inputs.model import Model
from helix.inputs.profile import Curve, Limits, Profile
from helix.plan.annealing import UNDER_LOAD
from helix.plan.flow_graph import least_latency_flow, placement_flow
from helix.plan.placement import wired
from helix.plan.plans import service
from helix.plan.search_chains import Chain, run_chain
from helix.plan.search_problem import search_problem
from helix.plan.throughput import throughput
from helix.simulate.service import system_of
from helix.simulate.simulate import simulate
from helix.simulate.workload import Offline


def warm_up() -> None:
    """Run every kernel once on one machine with one layer."""
    limits = Limits(kv_entries=10_000, prompt_requests=1, decode_requests=2)
    curve = Curve((0, 1, 2, 2048), (0.0, 0.001, 0.002, 0.1))
    profiles = {"one": Profile(prompt=curve, decode=curve, limits=(limits,))}
    links = Links([SOURCE, FIRST], [FIRST, SINK], [1e9] * 2, [0.001] * 2)
    cluster = Cluster(nodes=(Node(kind="one", machine=MachineKind(vram=1.0)),), links=links)
    model = Model(layers=1, layer_bytes=1, activation_bytes=1)
    speed = throughput(model, profiles, {"one": 1})
    placement = wired(1, ((0, 1),), links)
    placement_flow(cluster, model, placement, speed)
    flow = least_latency_flow(cluster, model, profiles, placement, speed)
    problem = search_problem(cluster, model, profiles, speed)
    for loaded in (True, False):
        chain = Chain(((0, 1),), UNDER_LOAD, 1, (0,))
        run_chain(problem, chain, loaded=loaded, partial=False, stop=np.ones(1, np.int64))
    one = service("one", (0,), placement, flow)
    system = system_of(one, cluster, model, profiles)
    simulate(system, Offline(initial=1, warm_up_s=0.0, duration_s=0.1), "maxflow")
