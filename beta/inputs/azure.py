"""Readers of Azure's public traces, exactly as published; memory holds the asked slice only.

2019: files `invocations_per_function_md.anon.d01.csv` .. `d14.csv`, one line per function with its
invocations in minutes 1..1440 (Shahrad et al., ATC '20). 2021: one text file `app,func,
end_timestamp,duration` (Zhang et al., SOSP '21). github.com/Azure/AzurePublicDataset.
"""

import csv
import logging
import math
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from beta.inputs.replay import Counts, Stamps
from common.errors import InputError

DAY_MINUTES = 1440
DAYS = 14
MOST_COUNT = 2**31 - 1
"""Of one function in one minute: what an int32 holds, as in the original."""
_2019 = "invocations_per_function_md.anon.d{:02d}.csv"
_LINES_SHOWN = 500_000
_log = logging.getLogger(__name__)


def minutes_of(text: str) -> int:
    """Return the minutes of "day.hour.minute", day 0 first; "13.23.60" is the end of day 13."""
    try:
        day, hour, minute = (int(part) for part in text.split("."))
    except ValueError as error:
        raise InputError(f"time {text!r}: expected day.hour.minute, like 13.23.60") from error
    if not (0 <= day < DAYS and 0 <= hour < 24 and 0 <= minute <= 60):
        raise InputError(f"time {text!r}: day 0..13, hour 0..23, minute 0..60")
    return day * DAY_MINUTES + hour * 60 + minute


def slice_of(start: str, end: str) -> tuple[int, int]:
    """Return the minutes of [start, end)."""
    first, last = minutes_of(start), minutes_of(end)
    if first >= last:
        raise InputError(f"slice from {start} to {end} is empty")
    return first, last


def files_2019(folder: Path, end: str) -> list[Path]:
    """Return the files that a slice up to `end` is read from: all days, for the names' order."""
    days = (minutes_of(end) - 1) // DAY_MINUTES + 1
    return [folder / _2019.format(day + 1) for day in range(days)]


def read_2019(folder: Path, start: str, end: str) -> Counts:
    """Return the counts of [start, end), functions in order of first appearance.

    A function is known by its HashFunction; lines of one name on one day are added up. Days before
    the slice are read for their names' order only; later days cannot change what is asked.
    """
    first, last = slice_of(start, end)
    row_of: dict[str, int] = {}
    rows: list[np.ndarray] = []
    for day, path in enumerate(files_2019(folder, end)):
        low, high = (min(max(edge - day * DAY_MINUTES, 0), DAY_MINUTES) for edge in (first, last))
        at = day * DAY_MINUTES + low - first
        for name, cells in _lines_2019(path, low, high):
            row = row_of.setdefault(name, len(row_of))
            if row == len(rows):
                rows.append(np.zeros(0, np.int32))
            if any(cells):
                if not len(rows[row]):
                    rows[row] = np.zeros(last - first, np.int32)
                rows[row][at : at + high - low] += np.array(cells, np.int32)
        _log.info("day %d of the 2019 trace read, %d functions so far", day + 1, len(rows))
    active = [row for row in rows if len(row)]
    if not active:
        raise InputError(f"{folder}: no invocation between {start} and {end}")
    return Counts(np.stack(active).astype(np.int64))


def _lines_2019(path: Path, low: int, high: int) -> Iterator[tuple[str, list[int]]]:
    """Yield each line's function and its counts of minutes `low` to `high` of the day."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; the folder must hold the files as Azure has them")
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if header[2:3] != ["HashFunction"] or len(header) != DAY_MINUTES + 4:
            raise InputError(f"{path}: expected HashOwner,HashApp,HashFunction,Trigger,1..1440")
        for line in filter(None, reader):
            try:
                counts = _counts(line, low, high)
            except ValueError as error:
                raise InputError(f"{path}: line {reader.line_num}: {error}") from error
            yield line[2], counts


def _counts(line: list[str], low: int, high: int) -> list[int]:
    if len(line) != DAY_MINUTES + 4:
        raise ValueError(f"{len(line)} columns, expected {DAY_MINUTES + 4}; is the file cut off?")
    counts = [int(cell) for cell in line[4 + low : 4 + high]]
    if counts and not 0 <= min(counts) <= max(counts) <= MOST_COUNT:
        raise ValueError(f"expected counts of 0 to {MOST_COUNT}")
    return counts


def read_2021(path: Path, start: str, end: str) -> Stamps:
    """Return the arrivals (end minus duration) of [start, end), seconds since `start`.

    Functions in order of first appearance in the whole file.
    """
    first, last = (edge * 60.0 for edge in slice_of(start, end))
    arrivals: dict[str, array[float]] = {}
    outside = 0
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected the 2021 trace as Azure has it")
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if header[:4] != ["app", "func", "end_timestamp", "duration"]:
            raise InputError(f"{path}: expected columns app,func,end_timestamp,duration")
        for count, line in enumerate(filter(None, reader), 1):
            try:
                arrival = _arrival_2021(line)
            except ValueError as error:
                raise InputError(f"{path}: line {reader.line_num}: {error}") from error
            times = arrivals.setdefault(line[1], array("d"))
            if first <= arrival < last:
                times.append(arrival - first)
            else:
                outside += 1
            if not count % _LINES_SHOWN:
                _log.info("%d lines of the 2021 trace read", count)
    stamps = tuple(np.sort(np.array(times, dtype=np.float64)) for times in arrivals.values())
    if not any(map(len, stamps)):
        raise InputError(f"{path}: no invocation between {start} and {end}")
    return Stamps(stamps, last - first, outside=outside)


def _arrival_2021(line: list[str]) -> float:
    if len(line) < 4:
        raise ValueError("fewer than 4 columns; is the file cut off?")
    arrival = float(line[2]) - float(line[3])
    if not math.isfinite(arrival):
        raise ValueError("expected finite seconds")
    return arrival
