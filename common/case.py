"""Turn what a user names, writes or overrides into one checked experiment, a frozen struct."""

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import tomli_w

from common.errors import InputError

T = TypeVar("T")


def resolve(name: str, named: Mapping[str, T], kind: type[T], overrides: Sequence[str] = ()) -> T:
    """Return the experiment of that name or TOML file with the overrides applied, all checked.

    An override is `path=value`: a path such as `nodes.0.count`; a TOML value, bare word or `null`.
    """
    if name in named:
        data = _plain(named[name])
    elif name.endswith(".toml") or Path(name).is_file():
        data = _plain(read_toml(Path(name), kind))
    else:
        near = _near(name, named) or f"; known are {', '.join(named)}"
        raise InputError(f"'{name}' is neither an experiment nor a TOML file{near}")
    for override in overrides:
        _override(data, override)
    return _checked(data, kind, " --set ".join((name, *overrides)))


def read_toml(path: Path, kind: type[T]) -> T:
    """Return the TOML file's content as a `kind`."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:  # not readable, not UTF-8, not TOML
        raise InputError(f"{path}: {getattr(error, 'strerror', error)}") from error
    return _checked(data, kind, str(path))


def to_toml(struct: msgspec.Struct) -> str:
    """Return TOML that reads back equal; None, which TOML lacks, has to be a field's default."""
    text = tomli_w.dumps(_plain(struct), indent=100)  # for [[tables]], not {tables} in a line
    return re.sub(r"(?m)^ +", lambda indent: " " * (len(indent[0]) // 25), text)


def case_id(config: object) -> str:
    """Return 16 hex digits that name this configuration, whatever the order of its keys."""
    plain = msgspec.to_builtins(config, str_keys=True)
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(struct: object) -> Any:
    """Return the struct as tables, lists and scalars, without what is None."""
    text = json.dumps(msgspec.to_builtins(struct, str_keys=True))  # which knows infinities too
    return json.loads(text, object_hook=lambda t: {k: t[k] for k in t if t[k] is not None})


def _override(data: Any, override: str) -> None:
    path, sign, text = override.partition("=")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = None if text == "null" else text
    try:
        *parents, last = path.split(".") if sign else []
        for step in parents:
            data = data[int(step) if isinstance(data, list) else step]
        data[int(last) if isinstance(data, list) else last] = value
    except (LookupError, ValueError, TypeError) as error:
        raise InputError(f"--set {override}: write path=value with a path that is there") from error


def _checked(data: Any, kind: type[T], source: str) -> T:
    try:
        return msgspec.convert(data, kind, str_keys=True)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at ")
        path = ".".join(re.findall(r"[\w*]+", where.replace("...", "*").partition("$")[2]))
        if wrong := re.match(r"(?:Object contains unknown field|Invalid enum value) .(.*).", what):
            schemas = msgspec.json.schema(kind).get("$defs", {}).values()
            fields = [field for schema in schemas for field in schema.get("properties", {}).items()]
            words = [word for name, field in fields for word in (name, *field.get("enum", ()))]
            what += _near(wrong[1], words)
        raise InputError(": ".join(filter(None, (source, path, what)))) from error


def _near(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, set(known))
    return f"; did you mean {' or '.join(close)}?" if close else ""
