"""The page on a user's own experiments: the plan as a picture, what was tried side by side."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, cast

import msgspec

from common import figure
from common.artifact import Artifact, Ask, Case, Folder
from common.case import case_id
from common.errors import InputError
from common.page import Figure, Own, Table
from common.plans import plan_file, plan_for
from common.record import Record


def own(artifact: Artifact, folder: Folder, records: Sequence[Record]) -> tuple[Own, ...]:
    """Return the part of each experiment that a user has asked about, those asked last first."""
    names = dict.fromkeys(r.experiment for r in reversed(records) if r.status == "ok")
    by_name = {
        name: [r for r in records if (r.experiment, r.status) == (name, "ok")] for name in names
    }
    known = artifact.named()
    return tuple(
        Own(
            experiment=name,
            about=mine[-1].config["experiment"].get("about", ""),
            command=f"python -m {artifact.name} plan {name}" if name in known else "",
            figures=tuple(_plans(artifact, folder, mine[-1])),
            tables=(_beside(mine),),
        )
        for name, mine in by_name.items()
    )


def _plans(artifact: Artifact, folder: Folder, record: Record) -> Iterator[Figure]:
    """Yield a drawing of a record's plan, if it is still there and of a kind that can be drawn."""
    with suppress(InputError, OSError, ModuleNotFoundError, msgspec.ValidationError):
        asked = msgspec.convert(record.config["experiment"], artifact.hook("experiment"))
        case = Case(verb="plan", experiment=asked, seed=record.seed)
        given = None if artifact.plans_alike else plan_file(artifact, case, folder)
        plan = plan_for(artifact, case, Ask(), given)
        drawn = artifact.hook("figure", _none)(plan, None)
        svg, _ = figure.save(drawn, folder.at("figures", f"own-{record.case_id}"))
        what = f"Plan for {record.experiment} by {plan.method}"
        yield Figure(title=what, svg=str(svg.relative_to(folder.out)), alt=what)


def _none(*_: object) -> Any:
    raise InputError("this package draws nothing")


def _beside(records: Sequence[Record]) -> Table:
    """Return what the records say, a column each, named by what differs among their questions."""
    asked = [dict(_leaves(r.config)) for r in records]
    varied = {key for one in asked for key in one if len({q.get(key) for q in asked}) > 1}
    columns = [
        ", ".join([q[".verb"], *(q[key] for key in q if key in varied and key != ".verb")])
        for q in asked
    ]
    units = {m.name: m.unit for r in records for m in r.metrics}
    found = [{m.name: m.value for m in r.metrics} for r in records]
    said = {n: n if u == "1" else f"{n} ({u.replace('By', 'B')})" for n, u in units.items()}
    rows = tuple((said[name], *(values.get(name) for values in found)) for name in units)
    return Table(title="What came of it", columns=("", *columns), rows=rows)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield each field of nested tables with a short text of its value."""
    if isinstance(value, dict):
        for key, part in cast(dict[str, Any], value).items():
            yield from _leaves(part, f"{path}.{key}")
    else:
        text = str(value) if len(str(value)) < 30 else case_id(value)
        yield path, text if path == ".verb" else f"{path.rpartition('.')[2]} {text}"
