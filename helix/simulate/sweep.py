"""A sweep: one experiment at many loads, seeds or settings, each a case of its own."""

from itertools import product
from typing import Any

import msgspec
from rich.table import Table

from common.artifact import Ask, Case
from common.case import case_id, resolve
from common.errors import InputError
from common.record import Axis, Record
from common.spread import cores
from common.suites import How
from helix.inputs.experiment import Experiment
from helix.inputs.sources import contents
from helix.run.prepare import prepare
from helix.simulate.show import short

SEED = "seed"
COLUMNS = {
    "decode.throughput": "tokens/s",
    "prompt.p50": "prompt p50, s",
    "prompt.p95": "p95",
    "decode.p50": "decode p50, s",
    "decode.p95": "p95",
}


def points(case: Case, ask: Ask) -> How | None:
    """Return a case for each combination of the swept values; None where nothing is swept.

    They are spread over all cores, or over the Ray cluster of the option `ray`. A point whose
    files have another content by now is another point: it is done again.
    """
    experiment: Experiment = case.experiment
    ray = ask.options.get("ray", "")
    if not experiment.sweep:
        if ray:
            raise InputError(
                f"--ray {ray} spreads a sweep, but {experiment.name} has none; add a table [sweep]"
                " or leave --ray out"
            )
        return None
    if experiment.workload.timeline_s:
        raise InputError(
            f"workload.timeline_s is {experiment.workload.timeline_s:g}, but {experiment.name} is a"
            " sweep, of which no timelines are written; set it to 0 or simulate one point"
        )
    found = tuple(
        _made_of(prepare(_point(case, chosen), ask)) for chosen in _combinations(experiment)
    )
    return How(cases=found, processes=cores(), ray=ray)


def points_table(experiment: Experiment, records: list[Record]) -> Table:
    """Return every point of a sweep, in the sweep's order, with what came of it."""
    table = Table(*experiment.sweep, *COLUMNS.values())
    order = _combinations(experiment)
    known = {tuple(r.case[name] for name in experiment.sweep): r for r in records}
    for chosen in order:
        record = known.get(tuple(chosen.values()))
        if record is None:
            continue
        values = {metric.name: metric.value for metric in record.metrics}
        cells = [short(values.get(name)) for name in COLUMNS]
        if record.status == "failed":
            cells[0] = f"failed: {record.error}"
        table.add_row(*map(str, chosen.values()), *cells)
    return table


def _combinations(experiment: Experiment) -> list[dict[str, Axis]]:
    """Return all combinations in the order of the fields."""
    for name, values in experiment.sweep.items():
        if not values:
            raise InputError(f"sweep: {name!r} has no values")
    names = list(experiment.sweep)
    return [dict(zip(names, v, strict=True)) for v in product(*experiment.sweep.values())]


def _point(case: Case, chosen: dict[str, Axis]) -> Case:
    """Return the case of one combination; its experiment has no sweep."""
    experiment: Experiment = case.experiment
    fields = [f"{name}={_toml(value)}" for name, value in chosen.items() if name != SEED]
    name = experiment.name
    one: Any = resolve(name, {name: experiment}, Experiment, ["sweep={}", *fields])
    seed = chosen.get(SEED, case.seed)
    if type(seed) is not int or seed < 0:
        raise InputError(f"sweep: seed is {seed!r}, expected whole numbers of 0 or more")
    return msgspec.structs.replace(case, experiment=one, seed=seed, marks=chosen)


def _made_of(case: Case) -> Case:
    """Return the case marked by the content of its files, if it has any."""
    files = contents(case.experiment)
    marks = case.marks | ({"contents": case_id(files)} if files else {})
    return msgspec.structs.replace(case, marks=marks)


def _toml(value: object) -> str:
    return msgspec.json.encode(value).decode()
