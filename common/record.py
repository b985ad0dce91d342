"""Keep results: one JSON line `record/1` per case in results/<artifact>/<suite>.jsonl.

A line is appended whole as its case finishes and never rewritten: a crash costs at most that line.
"""

import errno
import fcntl
import logging
import math
import os
from collections.abc import Iterable
from contextlib import suppress
from operator import methodcaller
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from common.errors import InputError

T = TypeVar("T")
Axis = str | int | float | bool
Origin = Literal["planned", "simulated", "measured", "paper"]
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


class RecordFile:
    """The records of one suite, in the order they were made."""

    def __init__(self, path: Path) -> None:
        self.path, self._mended = Path(path), False

    def read(self) -> list[Record]:
        """Return all records; a damaged last line is moved to `<file>.damaged` with a warning."""
        records, self._mended = read_lines(self.path, Record), True
        return records

    def append(self, record: Record) -> None:
        """Write the record's line and return when it is on the disk."""
        if not self._mended:
            self.read()
        line = msgspec.json.encode(record, enc_hook=methodcaller("tolist"))  # numpy's numbers
        append_line(self.path, line)

    def finished(self, origin: Origin | None = None) -> set[tuple[str, str]]:
        """Return (experiment, case_id) of each case whose last record (of this origin) is ok."""
        last = latest(r for r in self.read() if origin in (None, r.origin))
        return {(r.experiment, r.case_id) for r in last if r.status == "ok"}


def read_lines(path: Path, kind: type[T]) -> list[T]:
    """Return the file's lines as `kind`; a damaged last one is set aside, which mends the file."""
    decoded = list[T]()
    with (path if path.exists() else Path(os.devnull)).open("rb") as file:
        with suppress(OSError):  # some cluster file systems have no locks
            fcntl.flock(file, fcntl.LOCK_EX)  # a line that a writer is at is not a damaged one
        lines = file.readlines()
        for number, line in enumerate(lines, 1):
            try:
                whole = line if line.endswith(b"\n") else b""
                decoded.append(msgspec.json.decode(whole, type=kind))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                if number < len(lines) or isinstance(error, msgspec.ValidationError):
                    raise InputError(f"{path}:{number}: not a line of ours: {error}") from error
                append_line(Path(f"{path}.damaged"), line.rstrip(b"\n"))
                os.truncate(path, sum(map(len, lines[:-1])))
                _log.warning("%s: the damaged last line was moved to %s.damaged", path, path.name)
    return decoded


def append_line(path: Path, line: bytes) -> None:
    """Append one line by one write and sync it; what cannot be written whole is taken back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        end = file.seek(0, os.SEEK_END)
        if file.write(line + b"\n") <= len(line):
            file.truncate(end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(file.fileno())


def latest(records: Iterable[Record]) -> list[Record]:
    """Return the last record of each case and origin, so that a repeated case counts once."""
    return list({(r.suite, r.experiment, r.case_id, r.origin): r for r in records}.values())


def select(records: Iterable[Record], **axes: Axis) -> list[Record]:
    """Return the records that have these values in their case or, failing that, their fields."""
    return [r for r in records if all(r.case.get(k, getattr(r, k, None)) == axes[k] for k in axes)]


def comparable(records: Iterable[Record], *, mixed: bool = False) -> list[Record]:
    """Return the records if one origin and one machine made them all, or `mixed` is asked for."""
    records = list(records)
    origins = sorted({r.origin for r in records})
    machines = sorted({r.provenance.partition("-")[0] for r in records})
    if mixed or max(len(origins), len(machines)) < 2:
        return records
    unlike = f"different origin ({', '.join(origins)}) or hardware ({', '.join(machines)})"
    raise InputError(f"records of {unlike} are not compared unless mixing them is asked for")
