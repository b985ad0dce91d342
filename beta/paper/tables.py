"""The tables of points beside their published digits, from records."""

from collections.abc import Iterable, Sequence

from beta.paper.derived import (
    HIGHER_IS_BETTER,
    MET,
    attainment,
    comparisons,
    first_met,
    key_of,
    reference,
    swept,
)
from beta.paper.published import Key, points
from beta.paper.suites import BEYOND, DRIFT, OVERHEAD, SERVED
from beta.paper.sweeps import grids
from common.page import Table
from common.record import Record, metric, significant

Cell = str | int | float | bool | None

AXES = {
    "devices": "devices",
    "memory": "memory, GiB",
    "models": "models",
    "rate": "rate, requests/s",
    "cv": "CV",
    "rate_scale": "rate scale",
    "cv_scale": "CV scale",
    "slo": "SLO scale",
}


def percent(share: float | None) -> float | None:
    """Return a share in percent, to a tenth."""
    return None if share is None else round(100 * share, 1)


def made_up(records: Iterable[Record]) -> str:
    """Return the mark of what is shown on a stand-in."""
    return " (stand-in)" if any(record.case.get("stand_in") for record in records) else ""


def agreement(records: Sequence[Record]) -> Table:
    """Return how the points of each figure agree with what they are compared with."""
    by_experiment = swept(records)
    rows = list[tuple[Cell, ...]]()
    for record in comparisons(records):
        compared = metric(record, "points.compared")
        if not compared:
            continue
        name = record.experiment
        rows.append(
            (
                f"{name}{made_up(by_experiment[name])}",
                str(record.case["method"]),
                metric(record, "points"),
                compared,
                metric(record, "points.equal"),
                significant(metric(record, "error.mean")),
                significant(metric(record, "error.max")),
            )
        )
    return Table(
        title="All points against their published digits",
        columns=("experiment", "method", "points", "compared", "equal", "mean error", "largest"),
        rows=tuple(rows),
        note="Attainment is a share; 0.01 is a point. Where a trace is a stand-in, points are not"
        " expected to be equal. large is compared with the original's code run on the same"
        " stand-in profile, all others with published points.",
    )


def meeting(records: Sequence[Record]) -> Table:
    """Return from which setting on each method answers 99 % of the requests in time."""
    rows, known = list[tuple[Cell, ...]](), points()
    for name, mine in swept(records).items():
        for sweep in grids()[name].sweeps:
            cells: list[Cell] = [f"{name}{made_up(mine)}", AXES[sweep]]
            for method in ("SR", "Clockwork++", "AlpaServe"):
                own = _method_of(name, method)
                if own is None:
                    break
                cells += [_published_met(known, name, sweep, own), first_met(mine, sweep, own)]
            else:
                rows.append(tuple(cells))
    columns = [
        f"{m}: {kind}" for m in ("SR", "Clockwork++", "AlpaServe") for kind in ("paper", "ours")
    ]
    return Table(
        title=f"Where {MET:.0%} of the requests are in time",
        columns=("experiment", "swept", *columns),
        rows=tuple(rows),
        note="Fewest devices and tightest SLO, highest rate and CV; empty: nowhere in the sweep.",
    )


def _method_of(experiment: str, title: str) -> str | None:
    methods = grids()[experiment].methods
    starts = {"SR": "sr-greedy", "Clockwork++": "sr-replace", "AlpaServe": "mp-search"}
    return next((m for m in methods if m.startswith(starts[title])), None)


def _published_met(
    known: dict[Key, float], experiment: str, sweep: str, method: str
) -> float | None:
    met = [
        key.x
        for key, value in known.items()
        if (key.experiment, key.sweep, key.method) == (experiment, sweep, method) and value >= MET
    ]
    if not met:
        return None
    return max(met) if sweep in HIGHER_IS_BETTER else min(met)


def figures(records: Sequence[Record]) -> list[Table]:
    """Return each figure's points, published and ours side by side."""
    tables = list[Table]()
    for name, mine in swept(records).items():
        if name in ("fidelity", *BEYOND, *DRIFT, *OVERHEAD, *SERVED):
            continue
        if grids()[name].metric != "attainment":
            tables.append(latencies(name, mine))
            continue
        methods = [m for m in grids()[name].methods if any(key_of(r).method == m for r in mine)]
        at = {key_of(record): attainment(record) for record in mine}
        known = reference(name)
        rows = [
            (AXES[sweep], x, *_pairs(Key(name, sweep, x, ""), methods, known, at))
            for sweep in grids()[name].sweeps
            for x in sorted({key.x for key in at if key.sweep == sweep})
        ]
        origin = "original" if name == "large" else "paper"
        tables.append(
            Table(
                title=f"{grids()[name].title}{made_up(mine)}: in time, %",
                columns=(
                    "swept",
                    "value",
                    *(f"{m}: {o}" for m in methods for o in (origin, "ours")),
                ),
                rows=tuple(rows),
            )
        )
    return tables


def latencies(name: str, records: Sequence[Record]) -> Table:
    """Return a figure whose points are latencies."""
    grid, at = grids()[name], {key_of(r): metric(r, grids()[name].metric) for r in records}
    rows = [
        (
            AXES[sweep],
            round(x, 4),
            *(significant(at.get(Key(name, sweep, x, m)), 4) for m in grid.methods),
        )
        for sweep in grid.sweeps
        for x in sorted({key.x for key in at if key.sweep == sweep})
    ]
    return Table(
        title=f"{grid.title}: mean latency, s",
        columns=("swept", "value", *grid.methods),
        rows=tuple(rows),
        note="Over requests answered; the published figure's points are not available as numbers.",
    )


def _pairs(
    point: Key,
    methods: Sequence[str],
    known: dict[Key, float],
    at: dict[Key, float | None],
) -> list[Cell]:
    cells = list[Cell]()
    for method in methods:
        key = point._replace(method=method)
        cells += [percent(known.get(key)), percent(at.get(key))]
    return cells


def fidelity(records: Sequence[Record]) -> Table:
    """Return the simulator's attainments beside the published simulation and testbed."""
    mine = swept(records).get("fidelity", [])
    at, known = {key_of(record): attainment(record) for record in mine}, points()
    rows = list[tuple[Cell, ...]]()
    for x in sorted({key.x for key in at}):
        cells: list[Cell] = [x]
        for method in grids()["fidelity"].methods:
            key = Key("fidelity", "slo", x, method)
            cells += [
                percent(known.get(key._replace(experiment="fidelity-real"))),
                percent(known.get(key)),
                percent(at.get(key)),
            ]
        rows.append(tuple(cells))
    names = ("SR", "AlpaServe")
    kinds = ("testbed, paper", "simulated, paper", "simulated, ours")
    return Table(
        title="Simulator and testbed: in time, %",
        columns=("SLO scale", *(f"{name}: {kind}" for name in names for kind in kinds)),
        rows=tuple(rows),
        note="24 bert-2.6b on 16 V100; the testbed's column is the authors', nothing was served"
        " here.",
    )
