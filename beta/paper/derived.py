"""The numbers that many records make together, for `claims.toml`.

A figure has dozens of points; claims are about all of them: how many equal the published digits,
how far off they are, and from which setting on 99 % of the requests are in time.
"""

from collections.abc import Iterable, Sequence

import msgspec

from beta.paper.published import Key, original_runs, points
from beta.paper.suites import SERVED
from beta.paper.sweeps import grids
from common.record import Metric, Record, metric

MET = 0.99
"""Attainment that the paper calls meeting the target."""

HIGHER_IS_BETTER = {"rate", "cv", "rate_scale", "cv_scale", "models"}
SEARCHED = ("mp-greedy-4", "mp-search-sep")
"""Section 6.5's methods that look at a training workload; round robin does not."""
DIGITS = {"large": 6}
"""Digits that points are compared to; three otherwise, as published."""


def attainment(record: Record) -> float | None:
    """Return a record's attainment, None if it has none."""
    return metric(record, "attainment")


def reference(experiment: str) -> dict[Key, float]:
    """Return what an experiment's points are compared with."""
    return original_runs() if experiment == "large" else points()


def key_of(record: Record) -> Key:
    """Return the point of a figure that a record is."""
    case = record.case
    return Key(record.experiment, str(case["sweep"]), float(case["x"]), str(case["method"]))


def swept(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Return the points of figures by experiment, in the order of their settings."""
    found: dict[str, list[Record]] = {}
    for record in records:
        if record.case.get("sweep") and record.status == "ok" and attainment(record) is not None:
            found.setdefault(record.experiment, []).append(record)
    for mine in found.values():
        mine.sort(key=lambda record: (str(record.case["sweep"]), float(record.case["x"])))
    return found


def comparisons(records: Sequence[Record]) -> list[Record]:
    """Return records of what the points of each figure say together."""
    made = list[Record]()
    for experiment, mine in swept(records).items():
        if grids()[experiment].metric != "attainment" or experiment in SERVED:
            continue
        methods = dict.fromkeys(str(record.case["method"]) for record in mine)
        made.append(_compared(experiment, "all", mine))
        for method in methods:
            of_method = [record for record in mine if record.case["method"] == method]
            made.append(_compared(experiment, method, of_method))
            made += _reached(experiment, method, of_method)
        made += _advantages(experiment, mine)
    return made + _both_trainings(records) + _testbed(records) + _served(records)


def _both_trainings(records: Iterable[Record]) -> list[Record]:
    """Return how many points of section 6.5's searches are equal, over both training workloads.

    The sweeps over rate and CV meet in one point, which counts once.
    """
    of, distinct = swept(records), dict[tuple[str, str, float, float], Record]()
    for name in ("ablation", "ablation-same"):
        for record in of.get(name, []):
            method, traffic = str(record.case["method"]), record.config["experiment"]["traffic"]
            if record.case["sweep"] in ("rate", "cv") and method in SEARCHED:
                distinct[name, method, traffic["rate"], traffic["cv"]] = record
    chosen = [record for record in distinct.values() if key_of(record) in points()]
    return [_compared("ablation", "searched", chosen)] if chosen else []


def _served(records: Iterable[Record]) -> list[Record]:
    """Return how far the event simulator is from the system whose stages only wait."""
    mine = swept(records).get("serve-delay", [])
    errors = list[float]()
    for record in mine:
        measured, simulated = attainment(record), metric(record, "simulated.events")
        if measured is not None and simulated is not None:
            errors.append(abs(measured - simulated))
    if not errors:
        return []
    metrics = (
        Metric(name="error.mean", value=sum(errors) / len(errors), unit="1"),
        Metric(name="error.max", value=max(errors), unit="1"),
    )
    return [_derived(mine[0], "events", "", metrics)]


def _testbed(records: Sequence[Record]) -> list[Record]:
    """Return how far the simulated fidelity table is from the authors' testbed."""
    mine, errors = swept(records).get("fidelity", []), list[float]()
    for record in mine:
        theirs = points().get(key_of(record)._replace(experiment="fidelity-real"))
        if theirs is not None:
            errors.append(abs(round(attainment(record) or 0.0, 3) - theirs))
    if not errors:
        return []
    metrics = (
        Metric(name="error.mean", value=sum(errors) / len(errors), unit="1"),
        Metric(name="error.max", value=max(errors), unit="1"),
    )
    return [_derived(mine[0], "testbed", "", metrics)]


def _compared(experiment: str, method: str, records: Sequence[Record]) -> Record:
    """Count points equal to their published digits; how far they are off on average, at most."""
    known, digits = reference(experiment), DIGITS.get(experiment, 3)
    errors = list[float]()
    for record in records:
        theirs, ours = known.get(key_of(record)), attainment(record)
        if theirs is not None and ours is not None:
            errors.append(abs(round(ours, digits) - theirs))
    metrics = [
        Metric(name="points", value=len(records), unit="1"),
        Metric(name="points.compared", value=len(errors), unit="1"),
        Metric(name="points.equal", value=sum(e < 1e-9 for e in errors), unit="1"),
    ]
    if errors:
        metrics += [
            Metric(name="error.mean", value=sum(errors) / len(errors), unit="1"),
            Metric(name="error.max", value=max(errors), unit="1"),
        ]
    return _derived(records[0], method, "", tuple(metrics))


def first_met(records: Sequence[Record], sweep: str, method: str) -> float | None:
    """Return the best setting at which 99 % of requests are in time: least or most, None if never.

    Fewest devices and tightest SLO; highest rate and burstiness.
    """
    met = [
        float(record.case["x"])
        for record in records
        if (record.case["sweep"], record.case["method"]) == (sweep, method)
        and (attainment(record) or 0) >= MET
    ]
    if not met:
        return None
    return max(met) if sweep in HIGHER_IS_BETTER else min(met)


def _reached(experiment: str, method: str, records: Sequence[Record]) -> list[Record]:
    made = list[Record]()
    for sweep in dict.fromkeys(str(record.case["sweep"]) for record in records):
        x = first_met(records, sweep, method)
        if x is not None:
            found = (Metric(name="met99", value=x, unit="1"),)
            made.append(_derived(records[0], method, sweep, found))
    return made


def best_method(records: Sequence[Record]) -> str:
    """Return AlpaServe's own method among the records' methods."""
    methods = {str(record.case["method"]) for record in records}
    return "mp-search-sep" if "mp-search-sep" in methods else "mp-search"


def _advantages(experiment: str, records: Sequence[Record]) -> list[Record]:
    """Return how many times better AlpaServe's best setting is than the others' best.

    Where no other method ever meets the target, it is compared with the easiest setting tried, so
    the true factor is at least that.
    """
    ours, made = best_method(records), list[Record]()
    others = {str(record.case["method"]) for record in records} - {ours}
    for sweep in dict.fromkeys(str(record.case["sweep"]) for record in records):
        mine = first_met(records, sweep, ours)
        tried = [float(r.case["x"]) for r in records if r.case["sweep"] == sweep]
        higher = sweep in HIGHER_IS_BETTER
        theirs = [x for x in (first_met(records, sweep, o) for o in others) if x is not None]
        if mine is None or not others:
            continue
        if higher:
            factor = mine / (max(theirs) if theirs else min(tried))
        else:
            factor = (min(theirs) if theirs else max(tried)) / mine
        metric = Metric(name="advantage", value=factor, unit="1")
        made.append(_derived(records[0], ours, sweep, (metric,)))
    made += _lead(records, ours, others)
    return made


def _lead(records: Sequence[Record], ours: str, others: set[str]) -> list[Record]:
    """Return the least lead in attainment over the best other method at any point."""
    at: dict[tuple[str, float], dict[str, float]] = {}
    for record in records:
        key = key_of(record)
        at.setdefault((key.sweep, key.x), {})[key.method] = attainment(record) or 0.0
    leads = [
        values[ours] - max(values[o] for o in others if o in values)
        for values in at.values()
        if ours in values and others & {*values}
    ]
    if not leads:
        return []
    metrics = (
        Metric(name="lead.least", value=min(leads), unit="1"),
        Metric(name="lead.most", value=max(leads), unit="1"),
    )
    return [_derived(records[0], ours, "all", metrics)]


def _derived(record: Record, method: str, sweep: str, metrics: tuple[Metric, ...]) -> Record:
    case = {"verb": "compare", "method": method, "sweep": sweep}
    return msgspec.structs.replace(
        record,
        case=case,
        case_id=f"compare-{method}-{sweep}-{metrics[0].name}",
        metrics=metrics,
        files={},
    )
