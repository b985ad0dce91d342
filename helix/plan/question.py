"""The question that all methods answer, and what an answer is made of."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from common.errors import CaseError, InputError
from helix.inputs.cluster import Cluster
from helix.inputs.experiment import Experiment
from helix.inputs.model import Model
from helix.inputs.profile import Profiles
from helix.inputs.search import SearchSettings, Split
from helix.plan.bounds import capped_compute_bound, decode_bound
from helix.plan.clock import NEVER
from helix.plan.placement import Placement, wired
from helix.plan.plans import Service, service
from helix.plan.search_problem import Ints, RequestMix
from helix.plan.splits import split_flow
from helix.plan.throughput import Throughput, throughput

Intervals = tuple[tuple[int, int], ...]


class Served(NamedTuple):
    """How services do under a workload."""

    rate: float
    """Tokens decoded each second; NaN where the simulation was cut short."""
    mean_s: float
    """Seconds that a request of mean length takes."""
    full: bool
    """A KV cache held more than it has room for, which no machine can."""


class Simulator(Protocol):
    """The simulator, as far as planning asks it. Flags `stop` cut a simulation short."""

    def offline(self, one: Service, draw: int, stop: Ints = NEVER) -> float:
        """Return the decode throughput with requests always waiting, tokens/s; NaN: cut short.

        `draw` numbers the requests drawn; none is the one that the verb simulate draws.
        """
        ...

    def own(self, services: Sequence[Service], draw: int, stop: Ints = NEVER) -> Served:
        """Return how services do under the experiment's own workload; draw 0 is its own."""
        ...

    @property
    def online(self) -> bool:
        """Whether requests arrive at their own times, so that latency counts too."""
        ...

    @property
    def mix(self) -> RequestMix:
        """The workload's requests on average."""
        ...


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
            raise CaseError(
                "no work can pass from the coordinator through all layers and back: a layer is on"
                " no machine that is linked to the next; add links or machines, or try the method"
                " search"
            )
        return made

    def service(
        self, placement: Placement, name: str = "all", split: Split | None = None
    ) -> Service:
        """Return the service of a placement on the whole cluster, with or without flow.

        `split` says which of several maximum flows; None: the one that the experiment asks for.
        """
        everything = tuple(range(len(self.cluster.nodes)))
        parts = self.cluster, self.model, self.profiles, placement, self.speed
        flow = split_flow(split or self.search.split, *parts)
        return service(name, everything, placement, flow)

    def placed(self, runs: Intervals) -> Placement:
        """Return runs of layers with the cluster's links that can carry work between them."""
        return wired(self.model.layers, runs, self.cluster.links, self.search.partial)

    def served_bound(self, mix: RequestMix) -> float:
        """Return a bound on the decode throughput of any placement with such requests, tokens/s."""
        profiles = [self.profiles[node.kind] for node in self.cluster.nodes]
        return decode_bound(profiles, self.model.layers, mix.mean_input, mix.mean_output)

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


def workers(settings: SearchSettings) -> int:
    """Return how many threads to use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return settings.workers or cores or 1
