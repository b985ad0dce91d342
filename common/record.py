"""Keep results: one JSON line `record/1` per case in results/<artifact>/<suite>.jsonl."""

import logging
import math
import os
from collections.abc import Iterable, Sequence
from operator import methodcaller
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from common.errors import InputError

T = TypeVar("T")
Axis = str | int | float | bool
Origin = Literal["planned", "simulated", "measured", "paper"]


class Metric(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One quantity, its name dotted (`search.steps`), its unit SI (`s`, `By`, `tok/s`, `1`)."""

    name: str
    value: int | float
    unit: str
    samples: tuple[float, ...] = ()  # all behind the value, the warm-ups apart
    warmups: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.value, *self.samples, *self.warmups))):
            raise ValueError(f"metric {self.name} is not finite, which JSON cannot hold")


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One case of an experiment: what was asked, where the numbers come from, what it cost."""

    artifact: str
    suite: str
    experiment: str
    case: dict[str, Axis]  # the axes a table selects by, such as {"method": "metis", "row": 1}
    origin: Origin
    config: dict[str, Any]  # all of it, the seed too
    case_id: str  # common.case.case_id(config)
    metrics: tuple[Metric, ...] = ()
    status: Literal["ok", "failed", "skipped"] = "ok"
    error: str | None = None  # type and message of what failed
    seed: int = 0
    started: str = ""  # UTC, ISO 8601
    wall_s: float = 0.0
    peak_rss: int = 0  # bytes
    provenance: str = ""  # id of a line in results/provenance.jsonl
    files: dict[str, str] = {}  # path -> sha256 of traces and plans
    schema: Literal["record/1"] = "record/1"


class RecordFile(msgspec.Struct, frozen=True):
    """The records of one suite in the order they were made, written by one process."""

    path: Path

    def read(self) -> list[Record]:
        """Return all records; a damaged last line is moved to `<file>.damaged` with a warning."""
        return read_lines(self.path, Record)

    def append(self, record: Record) -> None:
        """Write the record's line and return when it is on the disk."""
        read_lines(self.path, msgspec.Raw)  # sets aside the cut line that a crash may have left
        append_line(self.path, msgspec.json.encode(record, enc_hook=methodcaller("tolist")))

    def finished(self) -> set[tuple[str, str]]:
        """Return (experiment, case_id) of each case whose last record is ok."""
        return {(r.experiment, r.case_id) for r in latest(self.read()) if r.status == "ok"}


def read_lines(path: Path, kind: type[T]) -> list[T]:
    """Return the file's objects as `kind`; a cut last one is set aside, which mends the file."""
    content = path.read_bytes() if path.exists() else b""
    lines, end, cut = content.rpartition(b"}\n")
    if cut and (cut.startswith(b"{") or not cut.endswith(b"\n")):
        append_line(Path(f"{path}.damaged"), cut.removesuffix(b"\n"))
        os.truncate(path, len(content := lines + end))
        logging.getLogger(__name__).warning("a cut line was moved to %s.damaged", path)
    try:
        return msgspec.json.Decoder(kind).decode_lines(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not lines of ours: {error}") from error


def append_line(path: Path, line: bytes) -> None:
    """Append one line by one write and return when it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())


def latest(records: Iterable[Record]) -> list[Record]:
    """Return the last record of each case and origin, so that a repeated case counts once."""
    return list({(r.suite, r.experiment, r.case_id, r.origin): r for r in records}.values())


def select(records: Iterable[Record], **axes: Axis) -> list[Record]:
    """Return the records that have these values in their case or, failing that, their fields."""
    return [r for r in records if all(r.case.get(k, getattr(r, k, None)) == axes[k] for k in axes)]


def comparable(records: Sequence[Record]) -> Sequence[Record]:
    """Return the records, or refuse where not one origin and one machine made them all."""
    made = sorted({f"{r.origin} on {r.provenance.partition('-')[0]}" for r in records})
    if len(made) > 1:
        raise InputError(f"records of unlike origin or hardware are not compared: {made}")
    return records
