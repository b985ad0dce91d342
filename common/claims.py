"""Hold what the papers claim (`claims.toml`) against what the records say."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
from rich.table import Column, Table

from common.case import read_toml
from common.errors import InputError
from common.record import Axis, Origin, Record, comparable, latest, select

COLUMNS = ("claim", "verdict", "published", "ours", "error", "tolerance", "origin", "source")
Found = tuple[Record, float] | tuple[None, None]


class Quantity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A metric of the case that has these axes."""

    experiment: str
    metric: str
    case: dict[str, Axis] = {}


class Claim(Quantity, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A quantity that stands in `relation` to an expected number or to `factor` x `versus`."""

    id: str
    text: str
    source: str
    suites: tuple[str, ...]
    unit: str
    origin: Origin
    expected: int | float | None = None
    versus: Quantity | None = None
    factor: float = 1.0
    relation: Literal["=", ">=", "<="] = "="
    tolerance: float = 0.0  # relative; 0 is exact


class Verdict(Claim, frozen=True, kw_only=True):
    """A claim with what the suite's records say; `expected` is None while `versus` is missing."""

    suite: str
    value: int | float | None
    error: float | None  # relative, or absolute where 0 is expected
    verdict: Literal["pass", "fail", "missing"]
    note: str = ""  # why it is missing
    record: str = ""  # id of the case whose record says so
    files: tuple[str, ...] = ()  # that record's plans and traces


def load(path: Path) -> tuple[Claim, ...]:
    """Return the claims of a `claims.toml`: its `[[claim]]` tables."""
    return read_toml(path, dict[Literal["claim"], tuple[Claim, ...]]).get("claim", ())


def check(claims: Iterable[Claim], records: Iterable[Record], suite: str) -> list[Verdict]:
    """Return the verdict on each claim of the suite by the suite's last record of each case."""
    last = latest(record for record in records if record.suite == suite)
    return [_judge(claim, last, suite) for claim in claims if suite in claim.suites]


def number(value: object) -> str:
    """Return a value for reading: whole numbers in full, others by six digits that count."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:,}" if isinstance(value, int) else f"{value + 0.0:,.6g}"  # no -0
    return "-" if value is None else str(value)


def cells(verdict: Verdict) -> tuple[str, ...]:
    """Return a verdict's row under COLUMNS."""
    v, unit = verdict, "" if verdict.unit == "1" else f" {verdict.unit.replace('By', 'B')}"
    relation = {"=": "", ">=": "≥ ", "<=": "≤ "}[v.relation]
    published, ours = (number(x) + unit * (x is not None) for x in (v.expected, v.value))
    off = v.error and round(v.error, 12)  # what is below is the computer's rounding
    error = f"{100 * off:+.3g} %" if off and v.expected else number(off)
    tolerance = f"±{100 * v.tolerance:.3g} %" if v.tolerance else "exact"
    return v.text, v.verdict, relation + published, ours, error, tolerance, v.origin, v.source


def table(verdicts: Iterable[Verdict]) -> Table:
    """Return the claims, by their ids, as a table that a terminal of 80 columns holds."""
    columns = (Column(column, no_wrap=True) for column in COLUMNS[1:5])
    shown = Table(Column("id", overflow="fold"), *columns, box=None)
    for v in verdicts:
        colour = {"pass": "green", "fail": "red", "missing": "yellow"}[v.verdict]
        shown.add_row(v.id, *cells(v)[1:5], style=colour)
    return shown


def _judge(claim: Claim, records: Sequence[Record], suite: str) -> Verdict:
    ours, value = _find(records, claim, claim)
    theirs, base = _find(records, claim, claim.versus or claim)
    expected = claim.expected if claim.versus is None else base and claim.factor * base
    verdict, error, note = "missing", None, ""
    try:
        comparable([record for record in (ours, theirs) if record])
        if value is not None and expected is not None:
            error = (value - expected) / (abs(expected) or 1)
            off = {"=": abs(error), ">=": -error, "<=": error}[claim.relation]
            verdict = "pass" if off <= claim.tolerance else "fail"
    except InputError as refusal:
        note = str(refusal)
    fields: dict[str, Any] = {**msgspec.structs.asdict(claim), "expected": expected}
    fields |= {"record": ours.case_id, "files": tuple(ours.files)} if ours else {}
    return Verdict(**fields, suite=suite, value=value, error=error, verdict=verdict, note=note)


def _find(records: Sequence[Record], claim: Claim, side: Quantity) -> Found:
    fit = select(records, experiment=side.experiment, origin=claim.origin, status="ok", **side.case)
    metrics = [(record, metric) for record in fit for metric in record.metrics]
    wanted = [(r, m.value) for r, m in metrics if (m.name, m.unit) == (side.metric, claim.unit)]
    return wanted[-1] if wanted else (None, None)
