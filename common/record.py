"""Keep results: one JSON line `record/1` per case in results/<artifact>/<suite>.jsonl."""

import fcntl
import logging
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

import msgspec

from common.errors import InputError
from common.files import plain_numbers

T = TypeVar("T")
Axis = str | int | float | bool
Origin = Literal["planned", "simulated", "measured", "paper"]
_BLOCK = 1 << 16
_log = logging.getLogger(__name__)


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
    """The records of one suite in the order they were made; many processes may write it."""

    path: Path

    def read(self) -> list[Record]:
        """Return all records; lines that are none are left out, counted in one warning."""
        return read_lines(self.path, Record)

    def append(self, record: Record) -> None:
        """Write the record's line and return when it is on the disk."""
        append_line(self.path, msgspec.json.encode(record, enc_hook=plain_numbers))

    def finished(self) -> set[tuple[str, str]]:
        """Return (experiment, case_id) of each case whose last record is ok."""
        return {(r.experiment, r.case_id) for r in latest(self.read()) if r.status == "ok"}


def read_lines(path: Path, kind: type[T]) -> list[T]:
    """Return the file's lines as `kind`; what is none of them is left out with one warning.

    Nothing is written. The shared lock waits for who writes just now, so that a line without an
    end is one that a crash has cut.
    """
    if not path.exists():
        return []
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        content = file.read()
    decoder = msgspec.json.Decoder(kind)
    try:
        return decoder.decode_lines(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _readable(path, content, decoder)


def _readable(path: Path, content: bytes, decoder: "msgspec.json.Decoder[T]") -> list[T]:
    found, wrong = list[T](), list[str]()
    for number, line in enumerate(content.split(b"\n"), 1):
        try:
            found += [decoder.decode(line)] if line.strip() else []
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            wrong.append(f"line {number}: {error}")
    _log.warning("%s: %d lines are not ours and left out (%s)", path, len(wrong), wrong[0])
    return found


def append_line(path: Path, line: bytes) -> None:
    """Append one line under a lock and return when it is on the disk, whatever the file's size.

    A line that a crash has cut is moved to `<file>.damaged` first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _mend(path, file)
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _mend(path: Path, file: BinaryIO) -> None:
    end = file.seek(0, os.SEEK_END)
    if end == 0 or os.pread(file.fileno(), 1, end - 1) == b"\n":
        return
    start, rest = end, b""
    while start and b"\n" not in rest:
        start = max(0, start - _BLOCK)
        rest = os.pread(file.fileno(), end - start, start)
    cut = rest.rpartition(b"\n")[2]
    with Path(f"{path}.damaged").open("ab") as aside:
        aside.write(cut + b"\n")
    os.ftruncate(file.fileno(), end - len(cut))
    _log.warning("a cut line was moved to %s.damaged", path)


def latest(records: Iterable[Record]) -> list[Record]:
    """Return the last record of each case and origin, so that a repeated case counts once."""
    return list({(r.suite, r.experiment, r.case_id, r.origin): r for r in records}.values())


def select(records: Iterable[Record], **axes: Axis) -> list[Record]:
    """Return the records that have these values in their case or, failing that, their fields."""
    return [r for r in records if all(r.case.get(k, getattr(r, k, None)) == axes[k] for k in axes)]


def find(
    records: Iterable[Record], experiment: str, verb: str = "simulate", method: str | None = None
) -> Record | None:
    """Return the first record of a verb on an experiment (by a method), None if there is none."""
    axes = {"experiment": experiment, "verb": verb} | ({"method": method} if method else {})
    return next(iter(select(records, **axes)), None)


def metric(record: Record | None, name: str) -> float | None:
    """Return a record's metric, None if it or the record is not there."""
    return next((m.value for m in record.metrics if m.name == name), None) if record else None


def samples(record: Record, name: str) -> tuple[float, ...]:
    """Return the samples of a record's metric."""
    return next((m.samples for m in record.metrics if m.name == name), ())


def significant(value: float | None, digits: int = 3) -> float | None:
    """Return a value with as many digits as count."""
    return None if value is None else float(f"{value:.{digits}g}")


def comparable(records: Sequence[Record]) -> Sequence[Record]:
    """Return the records, or refuse where not one origin and one machine made them all."""
    made = sorted({f"{r.origin} on {r.provenance.partition('-')[0]}" for r in records})
    if len(made) > 1:
        raise InputError(f"records of unlike origin or hardware are not compared: {made}")
    return records
