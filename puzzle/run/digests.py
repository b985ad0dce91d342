"""SHA-256 of a checkpoint's files, in a file that `sha256sum -c` reads too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from common.errors import InputError
from common.files import digest

SUMS = "SHA256SUMS"
_DIGITS = 64


def write_sums(folder: Path, digests: Mapping[str, str]) -> None:
    """Write which digest each file of a folder has."""
    lines = (f"{found}  {name}\n" for name, found in sorted(digests.items()))
    (folder / SUMS).write_text("".join(lines), encoding="ascii")


def read_sums(folder: Path) -> dict[str, str]:
    """Return the digests of a folder's files; raises InputError where their list is damaged."""
    try:
        lines = (folder / SUMS).read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{folder / SUMS} is missing or damaged") from error
    pairs = [(line[_DIGITS + 2 :], line[:_DIGITS]) for line in lines]
    if not pairs or any(len(found) < _DIGITS or not name for name, found in pairs):
        raise InputError(f"{folder / SUMS} is missing or damaged")
    return dict(pairs)


def first_damaged(folder: Path, sums: Mapping[str, str], names: Iterable[str]) -> str:
    """Return what is wrong with the first of some files that is not as it was; empty if none."""
    for name in names:
        path = folder / name
        if name not in sums:
            return f"{path} has no digest in {SUMS}"
        if not path.is_file():
            return f"{path} is missing"
        if digest(path) != sums[name]:
            return f"{path} is damaged: its SHA-256 is not that of {SUMS}"
    return ""
