"""Profiles: latency and memory of every pipeline stage per (model, parallel config, batch).

Our format is a CSV with one row per stage and `#` comment lines naming the source:
`model,op,pp,batch,stage,latency_s,weight_bytes,act_bytes` (further columns are ignored). Latency in
seconds; bytes are per device of that stage, weights the same for every batch. AlpaServe §4.1.
"""

import csv
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from common.errors import InputError
from common.files import writing

SHIPPED = Path(__file__).parents[1] / "data" / "profile_v100.csv"
_REQUIRED = ("model", "op", "pp", "batch", "stage", "latency_s")
_COLUMNS = (*_REQUIRED, "weight_bytes", "act_bytes")


class Config(NamedTuple):
    """How a group runs its models: `op` devices share an operator, `pp` stages form a pipeline."""

    op: int
    pp: int

    @property
    def devices(self) -> int:
        """Number of devices of a group with this config."""
        return self.op * self.pp


SINGLE = Config(1, 1)


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One model under one config."""

    stage_s: dict[int, tuple[float, ...]]
    """Batch size -> latency of each stage, seconds."""
    weight_bytes: tuple[float, ...] | None = None
    """Weights of each stage, bytes per device; None where nobody measured them."""
    act_bytes: dict[int, tuple[float, ...]] = {}
    """Batch size -> activations of each stage, bytes per device. No rule of the paper uses them."""

    @property
    def memory_bytes(self) -> float:
        """Bytes a device of the group must have free: the heaviest stage, infinite if unknown."""
        return math.inf if self.weight_bytes is None else max(self.weight_bytes)


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """One model's records. A config without record is not supported: nothing is interpolated."""

    model: str
    records: dict[Config, Record]

    @property
    def single_s(self) -> float:
        """Latency of one request on one device, seconds: what SLO scales are multiples of."""
        if SINGLE not in self.records or 1 not in self.records[SINGLE].stage_s:
            raise InputError(
                f"profile of {self.model} has no row with op 1, pp 1, batch 1,"
                " which SLO scales refer to; give the SLO in seconds or add the row"
            )
        return sum(self.records[SINGLE].stage_s[1])

    @property
    def batched(self) -> bool:
        """Whether some config has a batch size above 1."""
        return any(max(record.stage_s) > 1 for record in self.records.values())

    def memory_bytes(self, config: Config) -> float:
        """Return the bytes per device under a config, infinite where it is not profiled."""
        record = self.records.get(config)
        return math.inf if record is None else record.memory_bytes


class Row(NamedTuple):
    """One stage: a line of our format. Unknown bytes are None."""

    model: str
    config: Config
    batch: int
    stage: int
    latency_s: float
    weight_bytes: float | None = None
    act_bytes: float | None = None


def read_profiles(path: Path = SHIPPED) -> dict[str, Profile]:
    """Return the profiles of a file of our format by model name, in order of first appearance."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a CSV with columns {', '.join(_COLUMNS)}")
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(line for line in file if not line.startswith("#"))
        missing = [name for name in _REQUIRED if name not in (reader.fieldnames or ())]
        if missing:
            raise InputError(f"{path}: no column {', '.join(missing)}; expected {_COLUMNS}")
        rows = [_row(path, reader.line_num, line) for line in reader]
    return profiles_of(rows, str(path))


def _row(path: Path, number: int, line: dict[str, str]) -> Row:
    try:
        row = Row(
            line["model"],
            Config(int(line["op"]), int(line["pp"])),
            int(line["batch"]),
            int(line["stage"]),
            float(line["latency_s"]),
            *(float(cell) if (cell := line.get(name)) else None for name in _COLUMNS[6:]),
        )
        if int(line.get("dp") or 1) != 1:
            raise ValueError("dp must be 1: replicas are placed, not profiled")
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: line {number} (comments not counted): {error}") from error
    sizes = (row.config.op, row.config.pp, row.batch, row.stage + 1)
    if not row.model or min(sizes) < 1 or not 0 < row.latency_s < math.inf:
        raise InputError(
            f"{path}: line {number}: model must be named, sizes and latency be positive: {line}"
        )
    if not all(0 <= known < math.inf for known in row[5:] if known is not None):
        raise InputError(f"{path}: line {number}: bytes must be 0 or more: {line}")
    return row


def profiles_of(rows: Iterable[Row], origin: str) -> dict[str, Profile]:
    """Return the profiles that rows (in any order) make up; every stage must be there once."""
    cells: dict[str, dict[Config, dict[int, dict[int, Row]]]] = {}
    for row in rows:
        stages = (
            cells.setdefault(row.model, {}).setdefault(row.config, {}).setdefault(row.batch, {})
        )
        if row.stage in stages:
            raise InputError(f"{origin}: {_where(row)} stage {row.stage} appears twice")
        stages[row.stage] = row
    if not cells:
        raise InputError(f"{origin}: no profile in it")
    return {
        model: Profile(
            model=model,
            records={config: _record(batches, origin) for config, batches in configs.items()},
        )
        for model, configs in cells.items()
    }


def _where(row: Row) -> str:
    return f"{row.model} op {row.config.op} pp {row.config.pp} batch {row.batch}"


def _record(batches: dict[int, dict[int, Row]], origin: str) -> Record:
    latency: dict[int, tuple[float, ...]] = {}
    weights: set[tuple[float, ...]] = set()
    activations: dict[int, tuple[float, ...]] = {}
    for batch, stages in sorted(batches.items()):
        rows = [stages[stage] for stage in sorted(stages)]
        pp = rows[0].config.pp
        if sorted(stages) != list(range(pp)):
            raise InputError(f"{origin}: {_where(rows[0])} needs stages 0..{pp - 1}")
        latency[batch] = tuple(row.latency_s for row in rows)
        weights |= _known([row.weight_bytes for row in rows])
        if known := _known([row.act_bytes for row in rows]):
            (activations[batch],) = known
    heaviest = tuple(max(stage) for stage in zip(*weights, strict=True)) or None
    return Record(stage_s=latency, weight_bytes=heaviest, act_bytes=activations)


def _known(values: list[float | None]) -> set[tuple[float, ...]]:
    known = tuple(value for value in values if value is not None)
    return {known} if len(known) == len(values) else set()


def rows_of(profiles: dict[str, Profile]) -> Iterator[Row]:
    """Yield the rows of profiles: model by model, config by config, batch by batch."""
    for profile in profiles.values():
        for config, record in profile.records.items():
            for batch, latency in record.stage_s.items():
                for stage, seconds in enumerate(latency):
                    weight = record.weight_bytes[stage] if record.weight_bytes else None
                    act = record.act_bytes[batch][stage] if batch in record.act_bytes else None
                    yield Row(profile.model, config, batch, stage, seconds, weight, act)


def write_profiles(profiles: dict[str, Profile], path: Path, *, source: str) -> None:
    """Write profiles in our format; `source` says who measured them on what."""
    with writing(path) as beside, beside.open("w", newline="") as file:
        file.writelines(f"# {line}\n" for line in source.splitlines())
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for row in rows_of(profiles):
            bytes_ = [_number(value) for value in (row.weight_bytes, row.act_bytes)]
            writer.writerow(
                [row.model, *row.config, row.batch, row.stage, repr(row.latency_s), *bytes_]
            )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return str(int(value)) if value == int(value) else repr(value)
