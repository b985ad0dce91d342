"""Hold what the papers claim (`claims.toml`) against what the records say."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
from rich.table import Table
from rich.text import Text

from common.case import read_toml
from common.errors import InputError
from common.record import Axis, Origin, Record, comparable, latest, select

COLUMNS = ("claim", "verdict", "published", "ours", "error", "tolerance", "origin", "source")
Found = tuple[Record, int | float]


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

    def __post_init__(self) -> None:
        if self.expected is None and self.versus is None:
            raise ValueError(f"claim '{self.id}' has neither 'expected' nor 'versus'")


class Verdict(Claim, frozen=True, kw_only=True):
    """A claim with what the suite's records say; `expected` is None while `versus` is missing."""

    suite: str
    value: int | float | None
    error: float | None  # relative, or absolute where 0 is expected
    verdict: Literal["pass", "fail", "missing"]
    note: str = ""  # why it is missing


def load(path: Path) -> tuple[Claim, ...]:
    """Return the claims of a `claims.toml`: its `[[claim]]` tables."""
    claims = read_toml(path, dict[Literal["claim"], tuple[Claim, ...]]).get("claim", ())
    if twice := [name for name, count in Counter(c.id for c in claims).items() if count > 1]:
        raise InputError(f"{path}: claim ids used twice: {', '.join(twice)}")
    return claims


def check(claims: Iterable[Claim], records: Iterable[Record], suite: str) -> list[Verdict]:
    """Return the verdict on each claim of the suite by the suite's last record of each case."""
    last = latest(record for record in records if record.suite == suite)
    return [_judge(claim, last, suite) for claim in claims if suite in claim.suites]


def all_hold(verdicts: Iterable[Verdict]) -> bool:
    """Say whether every claim passes; a missing one does not."""
    return all(verdict.verdict == "pass" for verdict in verdicts)


def number(value: object) -> str:
    """Return a value for reading: whole numbers in full, others by six digits that count."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"
    return "-" if value is None else str(value)


def cells(verdict: Verdict) -> tuple[str, ...]:
    """Return a verdict's row under COLUMNS."""
    v, unit = verdict, "" if verdict.unit == "1" else f" {verdict.unit}"
    relation = {"=": "", ">=": "≥ ", "<=": "≤ "}[v.relation]
    published, ours = (number(x) + unit * (x is not None) for x in (v.expected, v.value))
    error = f"{100 * v.error:+.3g} %" if v.error and v.expected else number(v.error)
    tolerance = f"±{100 * v.tolerance:.3g} %" if v.tolerance else "exact"
    return v.text, v.verdict, relation + published, ours, error, tolerance, v.origin, v.source


def table(verdicts: Iterable[Verdict]) -> Table:
    """Return the claims, by their ids, as a table that a terminal of 80 columns holds."""
    shown, colours = Table("id", box=None), {"pass": "green", "fail": "red", "missing": "yellow"}
    for column in COLUMNS[1:5]:
        shown.add_column(column, no_wrap=True)
    for verdict in verdicts:
        row = [Text(cell, colours.get(cell, "")) for cell in cells(verdict)[1:5]]
        shown.add_row(Text(verdict.id, overflow="fold"), *row)
    return shown


def _judge(claim: Claim, records: Sequence[Record], suite: str) -> Verdict:
    ours = _find(records, claim, claim)
    theirs = _find(records, claim, claim.versus) if claim.versus else None
    expected = theirs and claim.factor * theirs[1] if claim.versus else claim.expected
    verdict, error, note = "missing", None, ""
    try:
        comparable(side[0] for side in (ours, theirs) if side)
        if ours and expected is not None:
            error = (ours[1] - expected) / (abs(expected) or 1)
            above, below = error >= -claim.tolerance, error <= claim.tolerance
            holds = {"=": above and below, ">=": above, "<=": below}[claim.relation]
            verdict = "pass" if holds else "fail"
    except InputError as refusal:
        note = str(refusal)
    fields: dict[str, Any] = msgspec.structs.asdict(claim)
    fields |= {"expected": expected, "value": ours and ours[1], "error": error}
    return Verdict(**fields, suite=suite, verdict=verdict, note=note)


def _find(records: Sequence[Record], claim: Claim, side: Quantity) -> Found | None:
    fit = select(records, experiment=side.experiment, origin=claim.origin, status="ok", **side.case)
    metrics = [(record, metric) for record in fit for metric in record.metrics]
    wanted = [(r, m.value) for r, m in metrics if (m.name, m.unit) == (side.metric, claim.unit)]
    return wanted[-1] if wanted else None
