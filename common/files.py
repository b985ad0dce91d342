"""Write files so that no reader ever sees half of one; read and write plan files."""

import os
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from common.errors import InputError

Plan = TypeVar("Plan", bound=msgspec.Struct)


@contextmanager
def writing(path: Path) -> Generator[Path]:
    """Yield a path beside the file to write to; it gets its name when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        mask = os.umask(0)
        os.umask(mask)
        beside.chmod(0o666 & ~mask)  # mkstemp's files are their owner's alone
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write(path: Path, content: bytes | str) -> Path:
    """Write a whole file and return its path; whoever reads sees the old one or the new one."""
    with writing(path) as beside:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's content in hex."""
    with path.open("rb") as file:  # a checkpoint's piece need not fit into memory
        return file_digest(file, "sha256").hexdigest()


def plain_numbers(value: Any) -> Any:
    """Return numpy's scalars and arrays as JSON has them; TypeError for anything else."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"JSON has no {type(value).__name__}")


def write_plan(plan: msgspec.Struct, path: Path) -> Path:
    """Write a plan as indented JSON and return its path."""
    content = msgspec.json.encode(plan, enc_hook=plain_numbers)
    return write(path, msgspec.json.format(content, indent=2) + b"\n")


def read_plan(path: Path, kind: type[Plan], check: Callable[[Plan, str], None]) -> Plan:
    """Read a plan of the kind's `schema` and check it; InputError says how to get one that holds.

    `check(plan, where)` raises InputError for a plan that cannot be carried out.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such plan file; write one with the verb plan")
    expected = next(f.default for f in msgspec.structs.fields(kind) if f.name == "schema")
    try:
        content = path.read_bytes()
        found = msgspec.json.decode(content, type=dict[str, object]).get("schema", expected)
        if found != expected:
            raise InputError(f"it is a {found}, expected {expected}")
        plan = msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, InputError) as error:
        raise InputError(f"{path}: not a valid plan: {error}; plan again") from error
    check(plan, str(path))
    return plan
