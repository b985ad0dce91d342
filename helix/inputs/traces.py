"""A request trace of one's own: read in any public form, and nothing dropped without a word.

Rows read = requests kept + dropped, by reason. What is too long follows from the model's context
and from what the plan's machines take, not from constants.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import InputError
from helix.inputs.requests import Arrival
from helix.inputs.sources import digest_of
from helix.inputs.trace_forms import EPOCH_S, Form, form_of, seconds_of, tokens_of

NO_INPUT, NO_OUTPUT = "without prompt tokens", "without answer tokens (failed)"
TOO_LONG = "longer than the model's context"
NO_BATCH = "prompts longer than a machine takes in a batch"
NO_ROOM = "longer than a machine's KV cache"
EARLY, LATE = "before the slice", "after the window"


class Limits(NamedTuple):
    """The longest requests, tokens; 0: not limited."""

    context: int = 0
    """Prompt and answer together, of the model."""
    prompt: int = 0
    """Prompt, in a machine's batch."""
    cache: int = 0
    """Prompt and answer together, in a machine's KV cache."""


class Trace(NamedTuple):
    """What was read of a file, in order of time from the first row's."""

    form: str
    rows: int
    arrivals: tuple[Arrival, ...]
    dropped: dict[str, int]
    notes: tuple[str, ...]

    def within(
        self, limits: Limits, start_s: float, window_s: float, rate_scale: float = 1.0
    ) -> "Trace":
        """Return what is asked of a service: the slice's requests that it can take.

        Times count from `start_s`, and are divided by `rate_scale`.
        """
        dropped, kept = Counter(self.dropped), list[Arrival]()
        for one in self.arrivals:
            time_s = (one.time_s - start_s) / rate_scale
            why = _misfit(one, limits) if 0 <= time_s <= window_s else EARLY if time_s < 0 else LATE
            if why:
                dropped[why] += 1
            else:
                kept.append(Arrival(time_s, one.input, one.output))
        return self._replace(arrivals=tuple(kept), dropped=dict(dropped))

    @property
    def told(self) -> str:
        """What was kept and dropped, in one sentence."""
        lost = ", ".join(f"{number:,} {why}" for why, number in self.dropped.items())
        said = f"trace ({self.form}): {self.rows:,} rows, {len(self.arrivals):,} requests played"
        return f"{said}{f'; dropped: {lost}' if lost else ''}"


def _misfit(one: Arrival, limits: Limits) -> str:
    both = one.input + one.output
    if limits.context and both > limits.context:
        return TOO_LONG
    if limits.prompt and one.input > limits.prompt:
        return NO_BATCH
    return NO_ROOM if limits.cache and both > limits.cache else ""


def read_trace(path: Path) -> Trace:
    """Return the requests of a file; of the same content it is read once.

    Raises InputError for a file that cannot be read, of no known form, or with a row that is none.
    """
    return _read(path, digest_of(path))


@lru_cache(maxsize=4)
def _read(path: Path, content: str) -> Trace:
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = list(_records(text, path))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a trace: {error}") from None
    if not rows:
        raise InputError(f"{path}: the trace holds no requests")
    form = form_of([str(name) for name in rows[0][1]], str(path))
    arrivals, dropped = list[Arrival](), Counter[str]()
    for line, row in rows:
        one = _arrival(row, form, f"{path}, line {line}")
        why = NO_INPUT if not one.input else NO_OUTPUT if not one.output else ""
        if why:
            dropped[why] += 1
        else:
            arrivals.append(one)
    arrivals.sort(key=lambda one: one.time_s)
    begin = arrivals[0].time_s if arrivals else 0.0
    fromzero = tuple(Arrival(one.time_s - begin, one.input, one.output) for one in arrivals)
    return Trace(form.name, len(rows), fromzero, dict(dropped), _notes(form, rows, begin))


def _records(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the rows of a CSV, a JSON array or a file of JSON lines, with their line."""
    if text.lstrip()[:1] not in ("{", "["):
        lines = csv.reader(text.splitlines())
        names = [name.strip() for name in next(lines, [])]
        for cells in lines:
            if any(cell.strip() for cell in cells):
                yield lines.line_num, dict(zip(names, cells, strict=False))
        return
    try:
        if text.lstrip().startswith("["):
            yield from enumerate(json.loads(text), 1)
            return
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield number, json.loads(line)
    except ValueError as error:
        raise InputError(f"{path}: cannot be read as a trace: {error}") from None


def _arrival(row: Mapping[str, Any], form: Form, where: str) -> Arrival:
    try:
        return Arrival(
            seconds_of(row[form.time], form),
            tokens_of(row[form.input]),
            tokens_of(row[form.output]),
        )
    except (KeyError, ValueError, TypeError):
        found = ", ".join(f"{n} = {row.get(n)!r}" for n in (form.time, form.input, form.output))
        raise InputError(
            f"{where}: {found}; expected a time and two whole numbers of tokens, 0 or more"
        ) from None


def _notes(
    form: Form, rows: Sequence[tuple[int, Mapping[str, Any]]], begin: float
) -> tuple[str, ...]:
    first = rows[0][1]
    said = [why for column, why in form.unused if column in first]
    if form.per_s == 1 and begin > EPOCH_S:
        said.append("times are of the epoch and count from the first request's")
    return tuple(said)
