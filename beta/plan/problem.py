"""One placement question as a value, and what searches score placements by."""

from typing import NamedTuple

import numpy as np

from beta.inputs.arrays import Bools
from beta.inputs.cluster import Cluster
from beta.inputs.model import Model
from beta.inputs.playing import Simulator, SimulatorSettings, kind_of
from beta.inputs.profile import Config
from beta.inputs.workload import Workload
from beta.plan.placement import Placement
from beta.plan.switches import Switches
from beta.simulate.fast import simulate
from beta.simulate.statistics import Counted, counted
from beta.simulate.tables import Tables, tables_of


class Problem(NamedTuple):
    """Models to place on a cluster, by what they are asked for in training."""

    models: tuple[Model, ...]
    cluster: Cluster
    train: Workload
    switches: Switches = Switches()
    load_bytes_s: float = np.inf
    """How fast a device loads weights; only re-planning counts it."""
    playing: SimulatorSettings = SimulatorSettings()
    """How the question is asked: methods search by the fast simulator, `best` chooses by this."""
    seed: int = 0
    """Of the event simulator's delays."""

    @property
    def kind(self) -> Simulator:
        """The simulator that is asked."""
        return kind_of(self.playing, self.models)

    def part(self, models: tuple[int, ...], devices: int) -> "Problem":
        """Return the question for some models on some devices.

        Requests of the others stay, as unknown ones: they count in means, and change nothing else.
        """
        number = np.full(len(self.models) + 1, -1, np.int32)
        number[list(models)] = np.arange(len(models))
        return self._replace(
            models=tuple(self.models[m] for m in models),
            cluster=Cluster(
                devices=devices,
                memory_bytes=self.cluster.memory_bytes,
                devices_per_node=self.cluster.devices_per_node,
            ),
            train=Workload(self.train.arrival, number[self.train.model]),
        )

    def known(self) -> Workload:
        """Return the training requests without those of unknown models."""
        mask: Bools = self.train.model >= 0
        if mask.all():
            return self.train
        return Workload(self.train.arrival[mask], self.train.model[mask])

    def tables(self, configs: tuple[Config, ...]) -> Tables:
        """Return the tables of the models under some configs."""
        return tables_of(self.models, configs)


PER_SECOND = 2e7
"""Requests that a core is taken to simulate in a second where a search is limited in time: what is
done is counted, so that an answer does not depend on the machine or on what else it does."""
EACH = 1000
"""What a simulation costs beside its requests, in requests."""


class Scored(NamedTuple):
    """A placement with what the training workload says of it."""

    placement: Placement
    good: int
    """Training requests answered in time."""
    latency_sum_s: float
    """Of all training requests, a refused one 0."""
    requests: int
    simulations: int = 0
    """Fast simulations behind it."""
    walked: int = 0
    """Requests simulated behind it."""

    @property
    def seconds(self) -> float:
        """What finding it took, as counted."""
        return (self.walked + EACH * self.simulations) / PER_SECOND

    @property
    def goodput(self) -> float:
        """Share of training requests answered in time."""
        return self.good / max(self.requests, 1)

    @property
    def score(self) -> float:
        """What placements are compared by: goodput, then latency, then more replicas."""
        latency = self.latency_sum_s / max(self.requests, 1)
        return self.goodput - latency / 10000 + self.placement.replicas / 1e6


def evaluate(problem: Problem, placement: Placement) -> Counted:
    """Return what the training workload says of a placement, request by request."""
    tables = problem.tables(placement.configs())
    outcome = simulate(problem.train, placement, tables)
    return counted(problem.train, outcome, models=len(problem.models), groups=len(placement.groups))


def score(problem: Problem, placement: Placement) -> Scored:
    """Return a placement with its score."""
    found, n = evaluate(problem, placement), len(problem.train)
    return Scored(placement, int(found.model_good.sum()), found.latency_s * n, n, 1, n)
