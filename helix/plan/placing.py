"""The methods that place without a search of ours: baselines, published placements, MILPs."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from helix.plan.baselines import petals, swarm
from helix.plan.blocks import LEAST_S
from helix.plan.clock import Clock
from helix.plan.flow import Flow
from helix.plan.flow_graph import placement_flow
from helix.plan.homogeneous import homogeneous
from helix.plan.pipelines import Pipeline, separate_pipelines
from helix.plan.pipelines_published import published_pipelines
from helix.plan.placement import Placement, wired
from helix.plan.plans import Service, Trace, service
from helix.plan.pruning import Pruning, pruned
from helix.plan.published import published
from helix.plan.question import Intervals, Made, Question, workers
from helix.plan.solvers_result import Settings, Solved
from helix.plan.throughput import throughput

PROVED = ("optimal", "near bound")


def place_petals(question: Question, seed: int, clock: Clock) -> Made:
    """Return Petals' placement."""
    placement = petals(question.cluster, question.model, question.speed, seed)
    return Made((question.alone(placement),), {})


def place_swarm(question: Question, seed: int, clock: Clock) -> Made:
    """Return Swarm's placement."""
    stages = question.search.stages or fewest_stages(question)
    placement = swarm(question.cluster, question.model, question.speed, stages, seed)
    return Made((question.alone(placement),), {})


def fewest_stages(question: Question) -> int:
    """Return the fewest equal stages whose layers fit the smallest machine."""
    layers = question.model.layers
    least = min(question.profiles[node.kind].max_layers for node in question.cluster.nodes)
    fitting = (s for s in range(1, layers + 1) if layers % s == 0 and layers // s <= least)
    return next(fitting)


def place_published(question: Question, seed: int, clock: Clock) -> Made:
    """Return the artifact's placement that the experiment names, link for link."""
    services = list[Service]()
    for one in published(question.search.published, question.named):
        part = [i for i, node in enumerate(question.cluster.nodes) if one.kind in ("", node.kind)]
        whole = question
        if one.keep_links and question.search.split == "original":
            pruning = Pruning(min_keep=one.keep_links, max_keep=one.keep_links, compat=True)
            whole = question._replace(cluster=pruned(question.cluster, pruning))
        services.append(_one_of(whole, part, one.intervals, one.partial, one.kind or "all"))
    return Made(tuple(services), {})


def _one_of(
    question: Question, machines: Sequence[int], runs: Intervals, partial: bool, name: str
) -> Service:
    """Return the service of some machines, with the throughput model of these alone."""
    part = question.cluster.part(machines)
    speed = throughput(question.model, question.profiles, part.kind_counts())
    placement = wired(question.model.layers, runs, part.links, partial)
    own = question._replace(cluster=part, speed=speed).alone(placement, name)
    return msgspec.structs.replace(own, machines=tuple(machines))


def place_separate(question: Question, seed: int, clock: Clock) -> Made:
    """Return one pipeline for each kind, or the published ones."""
    named = question.search.published
    if named:
        calibration = question.search.calibration
        pipelines = published_pipelines(named, question.cluster, calibration)
    else:
        pipelines = separate_pipelines(question.cluster, question.model, question.profiles)
    return Made(tuple(_pipeline(question, one) for one in pipelines), {})


def _pipeline(question: Question, pipeline: Pipeline) -> Service:
    """Return a pipeline as a service; a machine may hold more layers than its profile allows."""
    part = pipeline.part(question.cluster)
    placement = wired(question.model.layers, pipeline.intervals, part.links)
    links = len(placement.links)
    flow = Flow(value=0.0, links=(0.0,) * links, capacities=(1.0,) * links)  # beyond the profile
    if pipeline.kv_entries is None:
        speed = throughput(question.model, question.profiles, part.kind_counts())
        flow = placement_flow(part, question.model, placement, speed)
    kv_entries = {str(i): entries for i, entries in enumerate(pipeline.kv_entries or ())}
    made = service(pipeline.name.upper(), pipeline.machines, placement, flow, kv_entries)
    return msgspec.structs.replace(made, kinds=pipeline.kinds)


def place_homogeneous(question: Question, seed: int, clock: Clock) -> Made:
    """Return as many full pipelines as there are machines for."""
    placement = homogeneous(question.cluster, question.model, question.speed, seed)
    return Made((question.alone(placement),), {})


def place_position(question: Question, seed: int, clock: Clock) -> Made:
    """Return what the MILP over kinds and positions gives, and its bound."""
    from helix.plan.position_flow import position_flow

    settings = Settings(
        max_run_time=max(clock.left(), LEAST_S), seed=seed, threads=workers(question.search)
    )
    found = position_flow(
        question.cluster, question.model, question.speed, settings, question.search.solver,
        clock=clock,
    )  # fmt: skip
    made = question.alone(found.placement)
    return Made((made,), _facts("position", made, found.solved, found.bound, clock))


def place_milp(question: Question, seed: int, clock: Clock) -> Made:
    """Return what the paper's MILP gives, and its bound."""
    from helix.plan.milp import milp
    from helix.plan.milp_matrices import MilpOptions

    search = question.search
    pruning = (
        Pruning(min_keep=search.keep_links, max_keep=search.keep_links)
        if search.keep_links
        else None
    )
    settings = Settings(max_run_time=max(clock.left(), LEAST_S), seed=seed, threads=workers(search))
    found = milp(
        question.cluster, question.model, question.speed,
        MilpOptions(partial=search.partial, cap=search.cap, pruning=pruning), settings,
        solver=search.solver, start=warm_start(question), clock=clock,
    )  # fmt: skip
    made = question.alone(found.placement)
    return Made((made,), _facts("milp", made, found.solved, found.bound, clock))


def warm_start(question: Question) -> Placement | None:
    """Return the placement that the MILP begins from."""
    if question.search.start == "none":
        return None
    if question.search.start == "petals":
        return petals(question.cluster, question.model, question.speed, 0)
    stages = question.search.stages or fewest_stages(question)
    return swarm(question.cluster, question.model, question.speed, stages)


def _facts(
    method: str, made: Service, solved: Solved, bound: float, clock: Clock
) -> dict[str, Any]:
    """Return what a plan says of a solver's answer; a Ctrl-C that the solver took is passed on."""
    if solved.ended == "interrupted":
        clock.interrupt()
    more = max(bound / made.flow - 1, 0.0)
    cut = f"{method}: stopped after {solved.seconds:.1f} s; at most {100 * more:.1f} % more flow"
    return {
        "cut": () if solved.ended in PROVED else (cut,),
        "bound": bound,
        "solver": solved.solver,
        "licence": solved.licence,
        "trace": tuple(Trace(p.seconds, p.best, p.bound) for p in solved.trace),
    }


PLACING: dict[str, Callable[[Question, int, Clock], Made]] = {
    "petals": place_petals,
    "swarm": place_swarm,
    "published": place_published,
    "separate": place_separate,
    "homogeneous": place_homogeneous,
    "position": place_position,
    "milp": place_milp,
}
"""By the method's name."""
