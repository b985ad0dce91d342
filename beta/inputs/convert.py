"""Converters from the original's profiling files into ours.

The original's benchmark writes a TSV with one line per (model, batch, config), its lists as
Python literals; its database is a pickle, which is never opened here. A CSV with a `dp` column and
one line per stage is read by `profile.read_profiles` as it is. (alpa-projects/mms, profiling.)
"""

import ast
import csv
from pathlib import Path
from typing import cast

from beta.inputs.profile import Config, Profile, Row, profiles_of
from common.errors import InputError

_COLUMNS = (
    *("ModelName", "BS", "DP", "OP", "PP"),
    *("StageWeights(B)", "StagePeakMem(B)", "StageLatencies(s)"),
)


def read_original_tsv(path: Path) -> dict[str, Profile]:
    """Return the profiles of a benchmark TSV.

    Activations are peak memory minus weights. Of two lines of one (model, config, batch) the one
    with the faster slowest stage stays, as in the original.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected the original's benchmark TSV")
    best: dict[tuple[str, Config, int], list[Row]] = {}
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(file, delimiter="\t")
        missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise InputError(f"{path}: no column {', '.join(missing)}")
        for line in reader:
            rows = _rows(path, reader.line_num, line)
            key = (rows[0].model, rows[0].config, rows[0].batch)
            if key not in best or _slowest(rows) < _slowest(best[key]):
                best[key] = rows
    return profiles_of([row for rows in best.values() for row in rows], str(path))


def _slowest(rows: list[Row]) -> float:
    return max(row.latency_s for row in rows)


def _rows(path: Path, number: int, line: dict[str, str]) -> list[Row]:
    try:
        if int(line["DP"]) != 1:
            raise ValueError("DP must be 1")
        config, batch = Config(int(line["OP"]), int(line["PP"])), int(line["BS"])
        columns = [_floats(line[name]) for name in _COLUMNS[5:]]
        if {len(column) for column in columns} != {config.pp}:
            raise ValueError(f"each list needs {config.pp} entries (PP)")
    except (SyntaxError, TypeError, ValueError) as error:
        raise InputError(f"{path}: line {number}: {error}") from error
    rows = []
    for stage, (weight, peak, latency) in enumerate(zip(*columns, strict=True)):
        if peak <= weight:
            raise InputError(f"{path}: line {number}: peak memory {peak} B is not above weights")
        rows.append(Row(line["ModelName"], config, batch, stage, latency, weight, peak - weight))
    return rows


def _floats(cell: str) -> list[float]:
    value: object = ast.literal_eval(cell.strip())
    if not isinstance(value, list | tuple):
        raise ValueError(f"{cell!r} is not a list")
    return [float(number) for number in cast("list[float]", value)]
