"""The figures as sweeps of experiments, and the suites `quick` and `full` as lists of cases."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Literal, NamedTuple

import msgspec

from beta.experiments import OVERHEADS, named
from beta.inputs.experiment import Experiment, Training

Verb = Literal["plan", "simulate", "run"]


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

_RATES_2019 = (5e-4, 1e-3, 2e-3, 4e-3, 5e-3, 6e-3, 7e-3, 8e-3)
_CVS_2019 = (1, 2, 3, 4, 5, 6, 8)
_SLOS_2019 = (0.75, 1, 2, 3, 4, 5, 7.5, 10)
_CVS_2021, _SLOS_2021 = (1, 2, 3, 4, 5, 7.5, 10), (0.5, 0.75, 1, 1.5, 2, 2.5, 3, 3.5, 4)
_RATES_2021 = (8, 32, 48, 72, 96)
SR, CLOCKWORK, CLOCKWORK_2021 = "sr-greedy", "sr-replace-60", "sr-replace-21600"


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


def _grid_2021(name: str, devices: tuple[float, ...], **other: tuple[float, ...]) -> Grid:
    best = named()[f"{name}-maf2"].placement.method
    sweeps: dict[str, tuple[float, ...]] = {
        "devices": devices,
        "rate_scale": _RATES_2021,
        "cv_scale": _CVS_2021,
        "slo": _SLOS_2021,
        **other,
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
        _grid_2021(
            "s3",
            (16, 24, 32, 40, 48, 54, 64),
            rate_scale=(1, 4, 8, 16, 32, 64),
            cv_scale=(1, 2, 3, 4, 6, 8),
            slo=(0.75, 1, 1.25, 1.5, 2, 2.5, 5),
        ),
    ]
    hours = next(grid.sweeps for grid in found if grid.experiment == "s1-maf1")
    found += [
        Grid(
            f"robust-{number}",
            (SR, "sr-replace-120", "mp-search"),
            hours,
            f"Figure 13, pair {number} of hours",
            foresees=("sr-replace-120",),
        )
        for number in (1, 2, 3)
    ]
    found += _motivating_grids()
    for name, best in (("s1", "mp-search"), ("s2", "mp-search"), ("s3", "mp-search-sep")):
        devices = {"s1": (8, 16, 24, 32), "s2": (48, 56, 64), "s3": (48,)}[name]
        for kind in ("", "-deadline"):
            title = f"Beyond the original: {name.upper()}@MAF1{kind.replace('-', ', by ')}"
            methods = (best, "mp-improve")
            found.append(Grid(f"beyond-{name}{kind}", methods, {"devices": devices}, title))
    drifting = {"devices": (8.0, 16.0, 24.0)}
    found += [
        Grid("drift", ("mp-replan-300", "mp-replan-900"), drifting, "Drift: placed anew"),
        Grid("drift-static", ("mp-search",), drifting, "Drift: placed once"),
    ]
    found += [
        Grid("serve", ("mp-search",), {"devices": (2.0,)}, "Served here", verb="run"),
        Grid(
            "serve-delay",
            (SR, "mp-search"),
            {"slo": (1, 2, 3, 5, 10)},
            "Simulator and a real system whose stages only wait",
            verb="run",
        ),
    ]
    return {grid.experiment: grid for grid in found}


def _motivating_grids() -> list[Grid]:
    latency, two = "latency.mean", ("sr-greedy", "mp-search")
    piped = ("sr-uniform", "mp-greedy-8")
    memory = (5.5, 7, 11, 12, 16.5, 22, 27.5, 33, 38.5, 44)
    rates = tuple(8 * (0.1 + 2.9 * i / 19) for i in range(20))
    cvs = tuple(0.1 + 7.9 * i / 19 for i in range(20))
    return [
        *(
            Grid(f"fig2-{name}", two, {"devices": (2.0,)}, f"Figure 2: {name}", latency)
            for name in ("even", "uneven", "bursty")
        ),
        Grid(
            "fig4",
            ("sr-uniform", "mp-greedy-2", "mp-greedy-4", "mp-greedy-8"),
            {"memory": memory},
            "Figure 4: latency by memory",
            latency,
        ),
        Grid("fig5", piped, {"rate": rates}, "Figure 5: latency by rate", latency),
        Grid("fig6", piped, {"cv": cvs}, "Figure 6: latency by burstiness", latency),
        Grid("fig7", piped, {"slo": tuple(range(1, 21))}, "Figure 7a: attainment by target"),
        *(
            Grid(
                f"fig7b-{overhead}",
                ("mp-greedy-8",),
                {"slo": tuple(range(1, 21))},
                f"Figure 7b, overhead {overhead}",
            )
            for overhead in OVERHEADS
        ),
    ]


def points(grid: Grid) -> Iterator[Case]:
    """Yield a figure's cases, those of one workload one after the other."""
    base = named()[grid.experiment]
    foreseen = msgspec.structs.replace(base, training=Training(on="same"))
    for sweep, values in grid.sweeps.items():
        for x in values:
            for method in grid.methods:
                start = foreseen if method in grid.foresees else base
                yield Case(grid.verb, SWEEPS[sweep](start, x), method, sweep, x)


QUICK = ("ablation", "ablation-same", "large", "fidelity", "s1-maf1", "serve")
QUICK_SWEEPS = {"ablation-same": ("rate", "cv")}
"""Figures of which the quick suite does some sweeps only."""
OVERHEAD = tuple(f"fig7b-{overhead}" for overhead in OVERHEADS)
MOTIVATION = (
    *("fig2-even", "fig2-uneven", "fig2-bursty"),
    *("fig4", "fig5", "fig6", "fig7"),
    *OVERHEAD,
)
ROBUST = ("robust-1", "robust-2", "robust-3")
BEYOND = tuple(f"beyond-{name}{kind}" for name in ("s1", "s2", "s3") for kind in ("", "-deadline"))
DRIFT = ("drift", "drift-static")
FULL = (
    *QUICK,
    *("ablation-same-bert", "s2-maf1", "s3-maf1", "s1-maf2"),
    *MOTIVATION,
    *ROBUST,
    *BEYOND,
    *DRIFT,
    "serve-delay",
)
SERVED = ("serve", "serve-delay")

SUITES: dict[str, tuple[str, ...]] = {"quick": QUICK, "full": FULL}
"""The figures of each suite."""


def suite_cases(suite: str, figures: tuple[str, ...] = ()) -> list[Case]:
    """Return the cases of a suite, or of the given figures."""
    only = QUICK_SWEEPS if suite == "quick" and not figures else {}
    return [
        case
        for name in figures or SUITES[suite]
        for case in points(grids()[name])
        if name not in only or case.sweep in only[name]
    ]
