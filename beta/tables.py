"""The tables of Beta's report section, from records."""

from collections.abc import Iterable, Sequence

from beta.claiming import (
    HIGHER_IS_BETTER,
    MET,
    attainment,
    comparisons,
    first_met,
    key_of,
    metric,
    reference,
    swept,
)
from beta.experiments import IMPROVE_S
from beta.published import Key, points
from beta.sweeps import BEYOND, DRIFT, OVERHEAD, SERVED, grids
from common.page import Table
from common.record import Record

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


def short(value: float | None, digits: int = 3) -> float | None:
    """Return a value with as many digits as count."""
    return None if value is None else float(f"{value:.{digits}g}")


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
                short(metric(record, "error.mean")),
                short(metric(record, "error.max")),
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
            *(short(at.get(Key(name, sweep, x, m)), 4) for m in grid.methods),
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


def beyond(records: Sequence[Record]) -> Table:
    """Return what goes beyond the original beside AlpaServe's own answer and the bound."""
    by_experiment, rows = swept(records), list[tuple[Cell, ...]]()
    for name in BEYOND:
        if name.endswith("-deadline") or name not in by_experiment:
            continue
        best = grids()[name].methods[0]
        at = {
            key_of(record): record
            for kind in (name, f"{name}-deadline")
            for record in by_experiment.get(kind, [])
        }
        for x in sorted({key.x for key in at}):
            key = Key(name, "devices", x, best)
            deadline = key._replace(experiment=f"{name}-deadline")
            four = [
                key,
                deadline,
                key._replace(method="mp-improve"),
                deadline._replace(method="mp-improve"),
            ]
            shares = [metric(at.get(k), "attainment") for k in four]
            bound = metric(at.get(key), "bound.attainment")
            rows.append((name, x, *(_finely(share) for share in (*shares, bound))))
    return Table(
        title=f"Beyond the original{' (stand-in)' if rows else ''}: in time, %",
        columns=(
            "experiment",
            "devices",
            "AlpaServe",
            "by deadline",
            "improved",
            "improved, by deadline",
            "no placement passes",
        ),
        rows=tuple(rows),
        note="AlpaServe: its search with the defects mended. By deadline: a request that its first"
        " replica would refuse goes to the one that answers first. Improved: local search from"
        f" AlpaServe's answer, {IMPROVE_S:g} s. The bound holds for the whole workload, the"
        " attainments without its first and last 10 s.",
    )


def _finely(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)


def drift(records: Sequence[Record]) -> Table:
    """Return re-planning beside one placement on a drifting trace."""
    found, rows = swept(records), list[tuple[Cell, ...]]()
    at = {key_of(record): record for name in DRIFT for record in found.get(name, [])}
    methods = [(name, method) for name in DRIFT for method in grids()[name].methods]
    for x in sorted({key.x for key in at}):
        cells: list[Cell] = [x]
        for name, method in methods:
            record = at.get(Key(name, "devices", x, method))
            cells += [_finely(metric(record, "attainment")), metric(record, "plan.periods")]
        rows.append(tuple(cells))
    columns = [
        f"{method}: {what}" for _, method in methods for what in ("in time, %", "placements")
    ]
    return Table(
        title="Four hours of drifting traffic (stand-in): S1, placed anew or once",
        columns=("devices", *columns),
        rows=tuple(rows),
        note="mp-replan-N places anew every N seconds by the last N, if that gains half a point"
        " there; devices load weights at an assumed 8 GiB/s. mp-search places once, by the first"
        " hour. How popularity drifts is assumed (inputs/stand_in.py).",
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


def served(records: Sequence[Record]) -> Table:
    """Return what was really served, beside what the simulators say of it."""
    rows = list[tuple[Cell, ...]]()
    for name in SERVED:
        for record in swept(records).get(name, []):
            shares = ("attainment", "simulated.events", "simulated.fast")
            counts = ("sent", "served", "rejected", "failed", "unanswered")
            rows.append(
                (
                    f"{name}{' (stages wait)' if record.case.get('stages') == 'delay' else ''}",
                    str(record.case["method"]),
                    f"{AXES[str(record.case['sweep'])]} {record.case['x']:g}",
                    *(percent(metric(record, share)) for share in shares),
                    *(metric(record, f"client.{count}") for count in counts),
                    *(short(metric(record, f"served.p{share}")) for share in (50, 99)),
                    short(metric(record, "latency.over_profile")),
                    short(metric(record, "outputs.difference")),
                )
            )
    return Table(
        title="Served for real: measured beside simulated",
        columns=(
            "experiment",
            "method",
            "setting",
            "in time, %: measured",
            "events simulator",
            "fast simulator",
            *("sent", "served", "refused", "failed", "unanswered"),
            "median, s",
            "99th percentile, s",
            "stages over profile",
            "outputs off by",
        ),
        rows=tuple(rows),
        note="On this machine's CPUs by Ray and torch.distributed. Failed: no answer by the"
        " deadline. Stages over profile: what a request took in warm-up over what the profile says,"
        " at worst; above 1 the cores were shared with other work or with each other. Where stages"
        " only wait as long as the paper's V100 took, the scheduling is measured and nothing is"
        " computed.",
    )


def speed(records: Sequence[Record]) -> Table:
    """Return how fast placements were found."""
    rows = list[tuple[Cell, ...]]()
    for name, mine in swept(records).items():
        for method in () if name in SERVED else grids()[name].methods:
            of = [record for record in mine if record.case["method"] == method]
            times = [metric(record, "search.time") or 0.0 for record in of]
            walked = sum(metric(record, "search.requests") or 0 for record in of)
            if not times:
                continue
            rate = walked / sum(times) / 1e6 if walked and sum(times) else None
            rows.append(
                (
                    name,
                    method,
                    len(of),
                    short(sum(times)),
                    short(max(times)),
                    short(sum(metric(record, "search.simulations") or 0 for record in of)),
                    short(rate),
                )
            )
    return Table(
        title="Time to place",
        columns=(
            "experiment",
            "method",
            "points",
            "all, s",
            "slowest, s",
            "simulations",
            "million requests/s",
        ),
        rows=tuple(rows),
        note="Measured on the machine under provenance, each search on one core with another"
        " beside it. Requests are those really simulated: after a replica is added, only models"
        " that share groups with it are simulated again.",
    )
