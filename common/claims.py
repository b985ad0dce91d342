"""Hold what the papers claim against what the records say."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec
from rich.table import Table
from rich.text import Text

from common.case import read_toml
from common.errors import InputError
from common.record import Axis, Origin, Record, comparable, latest, select

COLUMNS = ("claim", "source", "published", "ours", "error", "tolerance", "verdict", "origin")
Number = int | float


class Quantity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A metric of the case that has these axes."""

    experiment: str
    metric: str
    case: dict[str, Axis] = {}


class Claim(Quantity, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A quantity that should be `relation` an expected number, or a factor of another quantity."""

    id: str
    text: str
    source: str
    suites: tuple[str, ...]
    unit: str
    origin: Origin
    expected: Number | None = None
    versus: Quantity | None = None
    factor: float = 1.0  # of `versus`
    relation: Literal["=", ">=", "<="] = "="
    tolerance: float = 0.0  # relative; 0 is exact

    def __post_init__(self) -> None:
        if (self.expected is None) == (self.versus is None):
            raise ValueError(f"claim {self.id} needs either 'expected' or 'versus'")


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """How a claim fares in a suite; `error` is relative, or absolute where 0 is expected."""

    id: str
    suite: str
    expected: Number | None
    value: Number | None
    unit: str
    error: float | None
    tolerance: float
    verdict: Literal["pass", "fail", "missing"]
    origin: Origin
    text: str
    source: str
    relation: str = "="
    note: str = ""  # why it is missing


class _File(msgspec.Struct, forbid_unknown_fields=True):
    claim: tuple[Claim, ...]


def load(path: Path) -> tuple[Claim, ...]:
    """Return the claims of a `claims.toml`, its `[[claim]]` tables."""
    claims = read_toml(path, _File).claim
    names = [claim.id for claim in claims]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{path}: claim ids used twice: {', '.join(twice)}")
    return claims


def check(claims: Iterable[Claim], records: Iterable[Record], suite: str) -> list[Verdict]:
    """Return the verdict on each claim of the suite by the suite's last record of each case."""
    last = latest(record for record in records if record.suite == suite)
    return [_judge(claim, last, suite) for claim in claims if suite in claim.suites]


def all_hold(verdicts: Iterable[Verdict]) -> bool:
    """Say whether every claim passes; a missing one does not."""
    return all(verdict.verdict == "pass" for verdict in verdicts)


def number(value: object, like: object = None) -> str:
    """Return a value for reading: five digits that count, and no fewer decimals than `like` has."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    if isinstance(value, int) or not math.isfinite(value):
        return f"{value:,}"
    if value and not 1e-3 <= abs(value) < 1e9:
        return f"{value:.4g}"
    published = len(repr(like).partition(".")[2]) if isinstance(like, float) else 0
    digits = max(4 - math.floor(math.log10(abs(value))) if value else 0, published, 0)
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if digits > published else text


def cells(verdict: Verdict) -> tuple[str, ...]:
    """Return a verdict's row under COLUMNS."""
    v, unit = verdict, "" if verdict.unit == "1" else f" {verdict.unit}"
    relation = {"=": "", ">=": "≥ ", "<=": "≤ "}[v.relation]
    published = "–" if v.expected is None else f"{relation}{number(v.expected, v.expected)}{unit}"
    ours = "–" if v.value is None else f"{number(v.value, v.expected)}{unit}"
    error = number(v.error) if not v.expected or not v.error else f"{100 * v.error:+.3g} %"
    tolerance = f"±{100 * v.tolerance:.3g} %" if v.tolerance else "exact"
    return v.text, v.source, published, ours, error, tolerance, v.verdict, v.origin


def table(verdicts: Sequence[Verdict]) -> Table:
    """Return the claims as a table for the terminal."""
    shown, colours = Table(*COLUMNS), {"pass": "green", "fail": "bold red", "missing": "yellow"}
    for verdict in verdicts:
        *head, word, origin = map(Text, cells(verdict))
        shown.add_row(*head, Text(word.plain, colours[verdict.verdict]), origin)
    return shown


def _judge(claim: Claim, records: Sequence[Record], suite: str) -> Verdict:
    found = [_find(records, claim, side) for side in (claim, claim.versus) if side]
    value, expected, error, note = found[0][1], claim.expected, None, ""
    if claim.versus and found[1][1] is not None:
        expected = claim.factor * found[1][1]
    try:
        comparable([record for record, _ in found if record])
    except InputError as refusal:
        value, note = None, str(refusal)
    if value is not None and expected is not None:
        error = (value - expected) / (abs(expected) or 1)
    return Verdict(
        id=claim.id,
        suite=suite,
        expected=expected,
        value=value,
        unit=claim.unit,
        error=error,
        tolerance=claim.tolerance,
        verdict="missing" if error is None else "pass" if _holds(claim, error) else "fail",
        origin=claim.origin,
        text=claim.text,
        source=claim.source,
        relation=claim.relation,
        note=note,
    )


def _holds(claim: Claim, error: float) -> bool:
    above, below = error >= -claim.tolerance, error <= claim.tolerance
    return {"=": above and below, ">=": above, "<=": below}[claim.relation]


def _find(
    records: Sequence[Record], claim: Claim, side: Quantity
) -> tuple[Record | None, Number | None]:
    fit = select(records, experiment=side.experiment, origin=claim.origin, status="ok", **side.case)
    for record in reversed(fit):
        for metric in record.metrics:
            if (metric.name, metric.unit) == (side.metric, claim.unit):
                return record, metric.value
    return None, None
