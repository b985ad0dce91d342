"""The tables of what is not in the paper: better placements, drift, what was served, speed."""

from collections.abc import Sequence

from beta.paper.derived import key_of, swept
from beta.paper.experiments import IMPROVE_S
from beta.paper.published import Key
from beta.paper.suites import BEYOND, DRIFT, SERVED
from beta.paper.sweeps import grids
from beta.paper.tables import AXES, Cell, percent
from common.page import Table
from common.record import Record, metric, significant


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
                    *(significant(metric(record, f"served.p{share}")) for share in (50, 99)),
                    significant(metric(record, "latency.over_profile")),
                    significant(metric(record, "outputs.difference")),
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
                    significant(sum(times)),
                    significant(max(times)),
                    significant(sum(metric(record, "search.simulations") or 0 for record in of)),
                    significant(rate),
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


def _finely(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)
