"""From an experiment to a plan by the method it asks for."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from common.errors import InputError
from helix.inputs.cluster import Cluster
from helix.inputs.experiment import Experiment, Method, Objective, SearchSettings
from helix.inputs.model import Model
from helix.inputs.profile import Profiles
from helix.plan.baselines import petals, swarm
from helix.plan.blocks import blocks
from helix.plan.bounds import capped_compute_bound
from helix.plan.flow import Flow
from helix.plan.flow_graph import least_latency_flow, placement_flow
from helix.plan.homogeneous import homogeneous
from helix.plan.original_flow import original_flow
from helix.plan.pipelines import Pipeline, separate_pipelines
from helix.plan.pipelines_published import published_pipelines
from helix.plan.placement import UNUSED, Placement, wired
from helix.plan.plans import Plan, Service, Trace, service
from helix.plan.pruning import Pruning, pruned
from helix.plan.published import published
from helix.plan.search import search
from helix.plan.search_chains import Budget, estimate_of
from helix.plan.search_problem import SearchProblem, search_problem
from helix.plan.solvers_result import Settings, Solved
from helix.plan.throughput import Throughput, throughput

Intervals = tuple[tuple[int, int], ...]
Simulate = Callable[[Service, int], float]
"""Returns the offline decode throughput of a service in tokens/s."""


class Question(NamedTuple):
    """What all methods need."""

    cluster: Cluster
    model: Model
    profiles: Profiles
    speed: Throughput
    search: SearchSettings
    named: str  # the shipped cluster's name, if it is one

    def alone(self, placement: Placement, name: str = "all") -> Service:
        """Return the service of a placement on the whole cluster; refuse one without flow."""
        made = self.service(placement, name)
        if made.flow <= 0:
            raise InputError(
                "no work can pass from the coordinator through all layers and back: a layer is on"
                " no machine that is linked to the next; add links or machines, or try the method"
                " search"
            )
        return made

    def service(self, placement: Placement, name: str = "all") -> Service:
        """Return the service of a placement on the whole cluster, with or without flow."""
        everything = tuple(range(len(self.cluster.nodes)))
        if self.search.split == "original":
            flow = original_flow(self.cluster, self.model, placement, self.speed)
        else:
            flow = least_latency_flow(
                self.cluster, self.model, self.profiles, placement, self.speed
            )
        return service(name, everything, placement, flow)

    def bound(self) -> float:
        """Return a bound on the flow of any placement, tokens/s."""
        rates = [self.speed.rates(node.kind) for node in self.cluster.nodes]
        return capped_compute_bound(rates, self.model.layers)


class Made(NamedTuple):
    """Services and how they were found."""

    services: tuple[Service, ...]
    facts: dict[str, Any]


def ask(experiment: Experiment) -> Question:
    """Return the experiment's question; raise `InputError` if the model cannot be held."""
    cluster, model = experiment.cluster.load(), experiment.model.load()
    profiles = experiment.load_profiles(cluster)
    on_a_way = cluster.on_a_way()
    if not on_a_way:
        raise InputError(
            "cluster: no links lead from the coordinator over a machine and back to it; give some"
            " of them more than 0 Gbit/s"
        )
    most = sum(profiles[cluster.nodes[i].kind].max_layers for i in on_a_way)
    if most < model.layers:
        apart = len(cluster.nodes) - len(on_a_way)
        aside = f" ({apart} machines have no links to and from it)" if apart else ""
        raise InputError(
            f"the machines hold {most} layers together{aside}, but the model has {model.layers};"
            " add machines or links, or serve a smaller model"
        )
    speed = throughput(model, profiles, cluster.kind_counts())
    shipped = experiment.cluster.named
    return Question(cluster, model, profiles, speed, experiment.search, shipped)


def make_plan(
    experiment: Experiment,
    method: Method,
    objective: Objective,
    seed: int,
    simulate: Simulate,
    advance: Callable[[int], None],
) -> Plan:
    """Return the plan; `simulate` judges placements, `advance` is told of finished work.

    `simulate` is given a service and the number of a draw of requests.
    """
    begin, question = time.monotonic(), ask(experiment)
    make = {
        "petals": _petals,
        "swarm": _swarm,
        "published": _published,
        "separate": _separate,
        "homogeneous": _homogeneous,
        "position": _position,
        "milp": _milp,
    }.get(method)
    if make is None:
        made = _search(question, objective, seed, simulate, advance)
    else:
        made = make(question, seed)
    problem = search_problem(question.cluster, question.model, question.profiles, question.speed)
    plan = Plan(
        experiment=experiment.name,
        method=method,
        objective=objective if method == "search" else "flow",
        services=made.services,
        flow=sum(one.flow for one in made.services),
        bound=question.bound(),
        estimate=_sum([_estimate(question, problem, one) for one in made.services]),
        machines=tuple(node.kind for node in question.cluster.nodes),
        seed=seed,
        seconds=time.monotonic() - begin,
    )
    return msgspec.structs.replace(plan, **made.facts)


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _estimate(question: Question, problem: SearchProblem, one: Service) -> float | None:
    if one.flow <= 0:  # machines that hold more than their profile says
        return None
    if len(one.machines) < len(question.cluster.nodes):
        part = question.cluster.part(one.machines)
        problem = search_problem(part, question.model, question.profiles, question.speed)
    return estimate_of(problem, one.intervals, partial=True)


def _petals(question: Question, seed: int) -> Made:
    placement = petals(question.cluster, question.model, question.speed, seed)
    return Made((question.alone(placement),), {})


def _swarm(question: Question, seed: int) -> Made:
    stages = question.search.stages or _stages(question)
    placement = swarm(question.cluster, question.model, question.speed, stages, seed)
    return Made((question.alone(placement),), {})


def _stages(question: Question) -> int:
    """Return the fewest equal stages whose layers fit the smallest machine."""
    layers = question.model.layers
    least = min(question.profiles[node.kind].max_layers for node in question.cluster.nodes)
    fitting = (s for s in range(1, layers + 1) if layers % s == 0 and layers // s <= least)
    return next(fitting)


def _published(question: Question, seed: int) -> Made:
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


def _separate(question: Question, seed: int) -> Made:
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


def _homogeneous(question: Question, seed: int) -> Made:
    placement = homogeneous(question.cluster, question.model, question.speed, seed)
    return Made((question.alone(placement),), {})


def _position(question: Question, seed: int) -> Made:
    from helix.plan.position_flow import position_flow

    settings = Settings(
        max_run_time=question.search.time_limit_s, seed=seed, threads=workers(question.search)
    )
    found = position_flow(
        question.cluster, question.model, question.speed, settings, question.search.solver
    )
    return Made((question.alone(found.placement),), _facts(found.solved, found.bound))


def _milp(question: Question, seed: int) -> Made:
    from helix.plan.milp import milp
    from helix.plan.milp_matrices import MilpOptions

    search = question.search
    pruning = (
        Pruning(min_keep=search.keep_links, max_keep=search.keep_links)
        if search.keep_links
        else None
    )
    settings = Settings(max_run_time=search.time_limit_s, seed=seed, threads=workers(search))
    found = milp(
        question.cluster, question.model, question.speed,
        MilpOptions(partial=search.partial, cap=search.cap, pruning=pruning), settings,
        solver=search.solver, start=_warm_start(question),
    )  # fmt: skip
    return Made((question.alone(found.placement),), _facts(found.solved, found.bound))


def _warm_start(question: Question) -> Placement | None:
    """Return the placement that the MILP begins from."""
    if question.search.start == "none":
        return None
    if question.search.start == "petals":
        return petals(question.cluster, question.model, question.speed, 0)
    stages = question.search.stages or _stages(question)
    return swarm(question.cluster, question.model, question.speed, stages)


def _facts(solved: Solved, bound: float) -> dict[str, Any]:
    return {
        "bound": bound,
        "solver": solved.solver,
        "licence": solved.licence,
        "trace": tuple(Trace(p.seconds, p.best, p.bound) for p in solved.trace),
    }


def _search(
    question: Question, objective: Objective, seed: int, simulate: Simulate,
    advance: Callable[[int], None],
) -> Made:  # fmt: skip
    settings = question.search
    problem = search_problem(question.cluster, question.model, question.profiles, question.speed)

    def placed(runs: Intervals) -> Placement:
        return wired(question.model.layers, runs, question.cluster.links, settings.partial)

    def simulated(runs: Intervals, draw: int) -> float:
        one = question.service(placed(runs))
        return simulate(one, draw) if one.flow > 0 else 0.0

    found = search(
        problem,
        _starts(question, objective),
        objective,
        Budget(
            settings.chains,
            settings.evaluations,
            settings.simulations,
            settings.time_limit_s,
            workers(settings),
        ),
        seed,
        question.bound(),
        simulated,
        advance,
        settings.partial,
    )
    if found.value <= 0:
        raise InputError(
            f"the search found no placement that work can pass through in {found.evaluations:,}"
            " evaluations; raise search.chains or search.evaluations, or add links or machines"
        )
    facts = {
        "evaluations": found.evaluations,
        "simulations": found.simulations,
        "solver": "annealing and simulation" if objective == "simulated" else "annealing",
        "simulated": found.value if objective == "simulated" else None,
        "trace": tuple(Trace(step.seconds, step.value) for step in found.steps),
    }
    return Made((question.alone(placed(found.intervals)),), facts)


def _starts(question: Question, objective: Objective) -> list[Intervals]:
    """Return placements to begin from; every machine holds layers in them."""
    starts = [petals(question.cluster, question.model, question.speed, s).intervals for s in (0, 1)]
    with suppress(InputError):  # fewer machines than equal stages
        equal = swarm(question.cluster, question.model, question.speed, _stages(question))
        starts.append(equal.intervals)
    if objective == "flow":
        with suppress(InputError):
            starts.append(blocks(question.cluster, question.model.layers, question.speed))
    return [tuple(run if run != UNUSED else (0, 1) for run in runs) for runs in starts]


def workers(settings: SearchSettings) -> int:
    """Return how many threads to use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return settings.workers or cores or 1
