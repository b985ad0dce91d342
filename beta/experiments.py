"""The named experiments, their sweeps, and the suites `quick` and `full` as lists of cases."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Literal, NamedTuple

import msgspec

from beta.inputs.experiment import (
    LARGE,
    ClusterSettings,
    Experiment,
    ModelSettings,
    PlacementSettings,
    Traffic,
    Training,
)
from beta.inputs.playing import SimulatorSettings

Verb = Literal["plan", "simulate"]

MIX = ("bert-6.7b", "moe-5.3b", "bert-2.6b", "moe-2.4b", "bert-1.3b", "moe-1.3b")
"""The mixed set S3, in the order in which models are registered."""

BERTS = ("bert-6.7b", "bert-2.6b", "bert-1.3b")
"""The mixed set of the ablation's smaller variant."""


class Case(NamedTuple):
    """One thing to do: a verb on an experiment by a method; a point of a sweep has its axis."""

    verb: Verb
    experiment: Experiment
    method: str
    sweep: str = ""
    x: float = 0.0


class Grid(NamedTuple):
    """A figure: one experiment with single settings swept, by several methods."""

    experiment: str
    methods: tuple[str, ...]
    sweeps: dict[str, tuple[float, ...]]
    title: str = ""


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

COMPAT = PlacementSettings(mode="compat")
_RATES_2019 = (5e-4, 1e-3, 2e-3, 4e-3, 5e-3, 6e-3, 7e-3, 8e-3)
_CVS_2019 = (1, 2, 3, 4, 5, 6, 8)
_SLOS_2019 = (0.75, 1, 2, 3, 4, 5, 7.5, 10)
_CVS_2021, _SLOS_2021 = (1, 2, 3, 4, 5, 7.5, 10), (0.5, 0.75, 1, 1.5, 2, 2.5, 3, 3.5, 4)
_RATES_2021 = (8, 32, 48, 72, 96)
SR, CLOCKWORK, CLOCKWORK_2021 = "sr-greedy", "sr-replace-60", "sr-replace-21600"


def _maf(
    name: str, year: int, models: ModelSettings, devices: int, rate_scale: float
) -> Experiment:
    first = year == 2019
    traffic = Traffic(
        source="azure2019" if first else "azure2021",
        start="0.0.0" if first else "13.0.0",
        end="0.1.0" if first else "13.23.60",
        rate_scale=rate_scale,
        cv_scale=4.0 if first else 1.0,
        window_s=60.0 if first else 5400.0,
    )
    mixed = len(models.types) > 1
    return Experiment(
        name=name,
        about=f"section 6.2: {models.count} {'mixed models' if mixed else models.types[0]},"
        f" Azure {year} trace (stand-in unless traffic.path is given)",
        cluster=ClusterSettings(devices=devices),
        models=(models,),
        traffic=traffic,
        training=Training(on="same"),
        placement=PlacementSettings(
            method="mp-search-sep" if mixed else "mp-search", mode="compat"
        ),
    )


def _sets() -> dict[str, ModelSettings]:
    return {
        "s1": ModelSettings(types=("bert-1.3b",), count=48, slo_scale=5.0),
        "s2": ModelSettings(types=("bert-6.7b",), count=48, slo_scale=5.0),
        "s3": ModelSettings(types=MIX, count=72, slo_scale=5.0),
    }


def ablation(
    name: str, about: str, training: Training, models: ModelSettings, devices: int
) -> Experiment:
    """Return section 6.5's setting."""
    return Experiment(
        name=name,
        about=about,
        cluster=ClusterSettings(devices=devices),
        models=(models,),
        traffic=Traffic(rate=64.0, cv=4.0, duration_s=200.0),
        training=training,
        placement=COMPAT,
    )


def large() -> Experiment:
    """Return section 6.3's setting, with a stand-in for the model's profile."""
    return Experiment(
        name="large",
        about="section 6.3: 4 models of 103.5 billion weights (stand-in profile) on 64 devices",
        cluster=ClusterSettings(devices=64),
        models=(ModelSettings(types=(LARGE,), count=4, slo_scale=2.0),),
        traffic=Traffic(rate=8.0, cv=4.0, duration_s=1200.0),
        training=Training(on="same"),
        placement=PlacementSettings(method="mp-search", mode="compat"),
    )


def fidelity() -> Experiment:
    """Return the simulator's comparison with the testbed."""
    return Experiment(
        name="fidelity",
        about="the table of simulator and testbed: 24 bert-2.6b on 16 devices",
        cluster=ClusterSettings(devices=16),
        models=(ModelSettings(types=("bert-2.6b",), count=24, slo_scale=5.0),),
        traffic=Traffic(rate=40.0, cv=4.0, duration_s=200.0),
        training=Training(seed=1234),
        placement=PlacementSettings(method="mp-search", mode="compat"),
    )


def small() -> Experiment:
    """Return an example to start one's own from."""
    return Experiment(
        name="small",
        about="an example to start from: ten models of two sizes on 8 devices",
        cluster=ClusterSettings(devices=8),
        models=(
            ModelSettings(types=("bert-1.3b",), count=8, slo_scale=5.0, rate=1.0, cv=4.0),
            ModelSettings(types=("bert-6.7b",), count=2, slo_s=2.0, rate=0.5, cv=2.0),
        ),
        traffic=Traffic(duration_s=600.0),
        simulator=SimulatorSettings(),
    )


@cache
def named() -> dict[str, Experiment]:
    """Return all experiments by name."""
    sets, mixed = _sets(), ModelSettings(types=MIX, count=60, slo_scale=5.0)
    berts = ModelSettings(types=BERTS, count=42, slo_scale=5.0)
    about = "section 6.5: 60 mixed models on 32 devices"
    found = [small(), large(), fidelity()]
    found += [
        ablation("ablation", f"{about}, trained on other draws", Training(seed=1234), mixed, 32),
        ablation("ablation-same", f"{about}, trained on the test", Training(on="same"), mixed, 32),
        ablation(
            "ablation-same-bert",
            "section 6.5 with 42 models of three BERTs on 24 devices, trained on the test",
            Training(on="same"),
            berts,
            24,
        ),
    ]
    for name, devices in (("s1", 16), ("s2", 64), ("s3", 48)):
        found.append(_maf(f"{name}-maf1", 2019, sets[name], devices, 2e-3))
        rate = 32.0 if name == "s3" else 16.0
        found.append(_maf(f"{name}-maf2", 2021, sets[name], devices, rate))
    return {experiment.name: experiment for experiment in found}


ABLATION_METHODS = ("mp-round-robin", "mp-greedy-4", "mp-search-sep")
LARGE_METHODS = ("mp-equal-16-1", "mp-equal-8-2", "mp-equal-4-4", "mp-equal-2-8", "mp-search")


def _grid_2019(name: str, devices: tuple[float, ...], slos: tuple[float, ...]) -> Grid:
    best = named()[f"{name}-maf1"].placement.method
    sweeps = {
        "devices": devices,
        "rate_scale": _RATES_2019,
        "cv_scale": _CVS_2019,
        "slo": slos,
    }
    return Grid(f"{name}-maf1", (SR, CLOCKWORK, best), sweeps, f"Figure 11: {name.upper()}@MAF1")


def _grid_2021(name: str, devices: tuple[float, ...]) -> Grid:
    best = named()[f"{name}-maf2"].placement.method
    sweeps = {
        "devices": devices,
        "rate_scale": _RATES_2021,
        "cv_scale": _CVS_2021,
        "slo": _SLOS_2021,
    }
    title = f"Figure 11: {name.upper()}@MAF2"
    return Grid(f"{name}-maf2", (SR, CLOCKWORK_2021, best), sweeps, title)


@cache
def grids() -> dict[str, Grid]:
    """Return the figures by their experiment."""
    cvs = (0.5, 1, 1.5, 2, 3, 4, 5, 6, 7, 8)
    s2_slos = (0.75, 1, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10)
    found = [
        Grid(
            "ablation",
            ABLATION_METHODS,
            {"rate": (1, 8, 16, 24, 32, 64, 96, 128), "cv": cvs},
            "Figure 14: ablation",
        ),
        Grid(
            "large",
            LARGE_METHODS,
            {"rate": (0.5, 2, 4, 6, 8), "cv": (1, 2, 3, 4), "slo": (0.5, 1, 2, 4, 6, 8)},
            "Figure 12: large models",
        ),
        Grid(
            "fidelity",
            (SR, "mp-search"),
            {"slo": (0.5, 1, 1.5, 2, 3, 4, 5, 6, 8, 10)},
            "Simulator and testbed",
        ),
        Grid(
            "ablation-same",
            ABLATION_METHODS,
            {
                "rate": (1, 8, 16, 24, 32, 64, 96, 128),
                "cv": cvs,
                "devices": (8, 24, 40, 56, 72, 88, 104, 120, 136, 152, 168),
                "slo": (1, *range(2, 25, 2)),
                "models": (6, 12, 24, 36, 48, 60, 72, 84, 96),
            },
            "Section 6.5 trained on the test: 60 mixed models",
        ),
        Grid(
            "ablation-same-bert",
            ABLATION_METHODS,
            {
                "rate": (1, 8, 16, 24, 32, 48, 64, 80),
                "cv": (0.5, 1, 2, 4, 6),
                "devices": tuple(range(16, 97, 8)),
                "slo": (1, 2, 4, 8, 12, 16),
                "models": (3, 12, 18, 24, 30, 36, 42, 48),
            },
            "Section 6.5 trained on the test: 42 BERTs",
        ),
        _grid_2019("s1", (8, 16, 24, 32, 40, 48), _SLOS_2019),
        _grid_2019("s2", (48, 56, 64, 72, 80, 96, 128), s2_slos),
        _grid_2019("s3", (32, 40, 48, 54, 64, 72, 96), _SLOS_2019),
        _grid_2021("s1", tuple(range(2, 17, 2))),
        _grid_2021("s2", (16, 32, 40, 48, 56, 64)),
    ]
    return {grid.experiment: grid for grid in found}


def points(grid: Grid) -> Iterator[Case]:
    """Yield a figure's cases, those of one workload one after the other."""
    base = named()[grid.experiment]
    for sweep, values in grid.sweeps.items():
        for x in values:
            for method in grid.methods:
                yield Case("simulate", SWEEPS[sweep](base, x), method, sweep, x)


QUICK = ("ablation", "large", "fidelity", "s1-maf1")
FULL = (*QUICK, "ablation-same", "ablation-same-bert", "s2-maf1", "s3-maf1")

SUITES: dict[str, tuple[str, ...]] = {"quick": QUICK, "full": FULL}
"""The figures of each suite."""


def suite_cases(suite: str) -> list[Case]:
    """Return all cases of a suite."""
    return [case for name in SUITES[suite] for case in points(grids()[name])]
