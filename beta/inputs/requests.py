"""A log of one's own: a CSV `arrival_s,model`, seconds (of any clock) and models by name.

The workload's time 0 is the first request, so stamps may be seconds since 1970. Stamps are read
exactly, as nanoseconds: as numbers of double precision they would lose microseconds there.
"""

import csv
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import NamedTuple

import numpy as np

from beta.inputs.arrays import Floats
from common.errors import InputError

MOST_S = 9e9
"""What nanoseconds in 64 bits hold: the year 2255, in seconds since 1970."""


class Asked(NamedTuple):
    """Arrivals per model, and each model's rate in requests/s."""

    arrivals: tuple[Floats, ...]
    rates: tuple[float, ...]
    left_out: tuple[str, ...] = ()
    """Sentences on rows that are not among them, and why."""


def own_requests(path: Path, names: tuple[str, ...]) -> Asked:
    """Read a CSV `arrival_s,model`; a model's rate is its requests over the log's length.

    That is from the first request to the last, a second at least.
    """
    arrivals: dict[str, list[int]] = {name: [] for name in names}
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a CSV with columns arrival_s,model")
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(file)
        if not {"arrival_s", "model"} <= {*(reader.fieldnames or ())}:
            raise InputError(f"{path}: expected columns arrival_s,model")
        for line in reader:
            where = f"{path}: line {reader.line_num}"
            if line["model"] not in arrivals:
                raise InputError(f"{where}: no model {line['model']!r} in the experiment")
            arrivals[line["model"]].append(_nanoseconds(line["arrival_s"], where))
    stamps = [np.sort(np.array(arrivals[name], np.int64)) for name in names]
    ends = [stamp for times in stamps if len(times) for stamp in (times[0], times[-1])]
    if not ends:
        raise InputError(f"{path}: no request in it")
    length = max(float(max(ends) - min(ends)) / 1e9, 1.0)
    arrived = tuple((times - min(ends)) / 1e9 for times in stamps)
    return Asked(arrived, tuple(len(times) / length for times in stamps))


def _nanoseconds(text: str | None, where: str) -> int:
    try:
        when = Decimal(text or "")
    except InvalidOperation as error:
        raise InputError(f"{where}: arrival_s is {text!r}, expected seconds") from error
    if not (when.is_finite() and 0 <= when < MOST_S):
        raise InputError(f"{where}: arrival_s is {text}, expected 0 or later, below {MOST_S:g}")
    return round(when * 10**9)
