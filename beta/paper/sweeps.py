"""The figures as sweeps: one experiment with single settings changed, by several methods."""

from functools import cache

from beta.paper.experiments import named
from beta.paper.grid import Grid
from beta.paper.section3 import OVERHEADS

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
