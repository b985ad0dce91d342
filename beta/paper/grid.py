"""What a figure's sweeps are, and the cases that they make."""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import msgspec

from beta.inputs.examples import examples
from beta.inputs.experiment import Experiment
from beta.inputs.traffic import Training
from beta.paper.experiments import named
from common.artifact import Case, with_field

Verb = Literal["simulate", "run"]


class Grid(NamedTuple):
    """A figure: one experiment with single settings swept, by several methods."""

    experiment: str
    methods: tuple[str, ...]
    sweeps: dict[str, tuple[float, ...]]
    title: str = ""
    metric: str = "attainment"
    """What is drawn over the settings."""
    foresees: tuple[str, ...] = ()
    """Methods that train on the test workload whatever the experiment says."""
    verb: Verb = "simulate"
    """How its points are made: `run` really serves each."""


def _traffic(experiment: Experiment, **changes: float) -> Experiment:
    traffic = msgspec.structs.replace(experiment.traffic, **changes)
    return msgspec.structs.replace(experiment, traffic=traffic)


def _slo(experiment: Experiment, x: float) -> Experiment:
    models = tuple(msgspec.structs.replace(m, slo_scale=x) for m in experiment.models)
    return msgspec.structs.replace(experiment, models=models)


def _devices(experiment: Experiment, x: float) -> Experiment:
    cluster = msgspec.structs.replace(experiment.cluster, devices=int(x))
    return msgspec.structs.replace(experiment, cluster=cluster)


def _memory(experiment: Experiment, x: float) -> Experiment:
    cluster = msgspec.structs.replace(experiment.cluster, memory_gib=x)
    return msgspec.structs.replace(experiment, cluster=cluster)


def _models(experiment: Experiment, x: float) -> Experiment:
    """Return the experiment with as many models; each keeps its share of the total rate."""
    (entry,) = experiment.models
    models = (msgspec.structs.replace(entry, count=int(x)),)
    changed = msgspec.structs.replace(experiment, models=models)
    return _traffic(changed, rate=experiment.traffic.rate / entry.count * x)


SWEEPS: dict[str, Callable[[Experiment, float], Experiment]] = {
    "devices": _devices,
    "memory": _memory,
    "models": _models,
    "rate": lambda e, x: _traffic(e, rate=x),
    "cv": lambda e, x: _traffic(e, cv=x),
    "rate_scale": lambda e, x: _traffic(e, rate_scale=x),
    "cv_scale": lambda e, x: _traffic(e, cv_scale=x),
    "slo": _slo,
}


def points(grid: Grid) -> Iterator[Case]:
    """Yield a figure's cases, those of one workload one after the other."""
    base = (examples() | named())[grid.experiment]
    foreseen = msgspec.structs.replace(base, training=Training(on="same"))
    for sweep, values in grid.sweeps.items():
        for x in values:
            for method in grid.methods:
                start = foreseen if method in grid.foresees else base
                yield point_of(grid, start, sweep, x, method)


def point_of(grid: Grid, start: Experiment, sweep: str, x: float, method: str) -> Case:
    """Return a point's case: its axis and setting are marks."""
    experiment = with_field(SWEEPS[sweep](start, x), "placement.method", method)
    return Case(verb=grid.verb, experiment=experiment, marks={"sweep": sweep, "x": x})
