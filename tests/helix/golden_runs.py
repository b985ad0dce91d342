"""The artifact's simulations as our inputs: its placements, its split of the flow, its loads."""

from functools import cache
from typing import Any

import networkx as nx

from helix.inputs.cluster import SINK
from helix.inputs.requests import generated_arrivals
from helix.inputs.workload import Scheduler
from helix.plan.baselines import petals, swarm
from helix.plan.flow import Flow
from helix.plan.flow_graph import network
from helix.plan.pipelines_published import published_pipelines
from helix.plan.placement import Placement, wired
from helix.plan.pruning import Pruning, pruned
from helix.simulate.system import System, make_system
from helix.simulate.workload import Offline, Online, Workload
from tests.helix.golden_inputs import GOLDEN, shipped_intervals, situation

GOLDEN_RUNS: dict[str, dict[str, Any]] = {run["id"]: run for run in GOLDEN["simulations"]}
PRUNED = ("geo.llama70b.ilp", "geo.llama70b.ilp_paper", "het.llama70b.ilp")
KINDS = ("a100", "l4", "t4")
# Offline: queries at first; online: offered tokens per second (section 9 of the specification).
LOADS: dict[str, tuple[int, ...]] = {
    "single.llama30b.offline.helix": (20, 20, 20),
    "single.llama30b.offline.swarm": (50,),
    "single.llama30b.offline.separate": (30, 25, 25),
    "single.llama30b.online.helix": (600, 200, 170),
    "single.llama30b.online.swarm": (450,),
    "single.llama30b.online.separate": (500, 150, 150),
    "single.llama70b.offline.helix": (20,),
    "single.llama70b.offline.swarm": (180,),
    "single.llama70b.offline.separate": (18, 40, 3),
    "single.llama70b.online.helix": (700,),
    "single.llama70b.online.swarm": (350,),
    "single.llama70b.online.separate": (240, 120, 10),
    "geo.llama30b.offline.helix": (20, 20, 20),
    "geo.llama30b.offline.swarm": (60,),
    "geo.llama30b.offline.separate": (35, 40, 40),
    "geo.llama30b.online.helix": (560, 140, 140),
    "geo.llama30b.online.swarm": (380,),
    "geo.llama30b.online.separate": (520, 100, 140),
    "geo.llama70b.offline.helix": (20,),
    "geo.llama70b.offline.swarm": (180,),
    "geo.llama70b.offline.separate": (1, 60, 50),
    "geo.llama70b.online.helix": (320,),
    "geo.llama70b.online.swarm": (160,),
    "geo.llama70b.online.separate": (1, 120, 60),
}


def workload(run: str, part: int) -> Workload:
    """Return a part's workload in the artifact's form."""
    amount = LOADS[run][part]
    if ".offline." in run:
        return Offline(initial=amount)
    return Online(arrivals=generated_arrivals(amount, 1800, 0, shuffled=True))


def systems(run: str) -> list[System]:
    """Return the systems of a run's parts."""
    where, model, _, method = run.split(".")
    if method == "swarm":
        return [golden_system(f"{where}.{model}.swarm")]
    if model == "llama30b":
        plan = {"helix": "ilp", "separate": "separate"}[method]
        return [golden_system(f"{where}.{model}.{plan}.{kind}") for kind in KINDS]
    if method == "separate":
        return separate_systems(f"{where}.{model}.separate")
    return [golden_system(f"{where}.{model}.ilp")]


def separate_systems(solution: str) -> list[System]:
    """Return the hand-made pipelines of a 70B solution with their published KV capacities."""
    cluster, model, profiles, _ = situation(solution.replace("separate_plus", "separate"))
    found = list[System]()
    for pipeline in published_pipelines(solution, cluster):
        part = pipeline.part(cluster)
        placement = wired(model.layers, pipeline.intervals, part.links)
        entries = dict(enumerate(pipeline.kv_entries or ()))
        found.append(make_system(part, model, profiles, placement, None, entries))
    return found


def scheduler(run: str) -> Scheduler:
    """Return the scheduler of a run; in single pipelines any but max-flow does the same."""
    return {"helix": "maxflow", "swarm": "swarm", "separate": "random"}[run.split(".")[3]]


@cache
def golden_system(shipped: str) -> System:
    """Return the system of a shipped placement: `geo.llama70b.ilp` and the like."""
    cluster, model, profiles, speed = situation(shipped)
    placement = _placement(shipped)
    flow = original_flow(network(cluster, model, placement, speed), placement)
    return make_system(cluster, model, profiles, placement, flow)


def _placement(shipped: str) -> Placement:
    cluster, model, _, speed = situation(shipped)
    if shipped.endswith("petals"):
        return petals(cluster, model, speed)
    if shipped.endswith("swarm"):
        return swarm(cluster, model, speed, 10 if "30b" in shipped else 20)
    if shipped.split("(")[0] in PRUNED:
        cluster = pruned(cluster, Pruning(compat=True))
    # Without pruning the solver ended where it began, with the links in the cluster's order.
    runs = shipped_intervals(shipped.replace("ilp_unpruned", "swarm"))
    return wired(model.layers, runs, cluster.links)


def original_flow(net: Any, placement: Placement) -> Flow:
    """Return the maximum flow that the artifact takes among equals: networkx's."""
    graph = nx.DiGraph()
    arcs = zip(net.tails.tolist(), net.heads.tolist(), net.capacities.tolist(), strict=True)
    for tail, head, capacity in arcs:
        graph.add_edge(str(tail), str(head), capacity=capacity)
    value, flows = nx.maximum_flow(graph, "0", str(4 * SINK + 3))
    first = len(net.tails) - net.links
    ends = list(zip(net.tails.tolist(), net.heads.tolist(), strict=True))[first:]
    return Flow(
        value=value,
        links=tuple(float(flows[str(tail)][str(head)]) for tail, head in ends),
        capacities=tuple(net.capacities[first:].tolist()),
    )
