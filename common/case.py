"""Turn what a user names, writes or overrides into one checked experiment, a frozen struct."""

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
import tomli_w

from common.errors import InputError
from common.names import near

T = TypeVar("T")


def resolve(name: str, named: Mapping[str, T], kind: type[T], overrides: Sequence[str] = ()) -> T:
    """Return the experiment of that name or TOML file with the overrides applied, all checked.

    An override is `path=value`: a path such as `nodes.0.count`; a TOML value, bare word or `null`.
    """
    if name in named:
        data = plain(named[name])
    elif name.endswith(".toml") or Path(name).is_file():
        data = plain(read_toml(Path(name), kind))
    else:
        raise InputError(f"'{name}' is neither an experiment nor a TOML file{near(name, named)}")
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
    text = tomli_w.dumps(plain(struct), indent=100)  # for [[tables]], not {tables} in a line
    return re.sub(r"(?m)^ +", lambda indent: " " * (len(indent[0]) // 25), text)


def case_id(config: object) -> str:
    """Return 16 hex digits that name this configuration, whatever the order of its keys."""
    plain = msgspec.to_builtins(config, str_keys=True)
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plain(struct: object) -> Any:
    """Return a struct as tables, lists and scalars, without what is None."""
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
            fields = [f for k in _at(kind, path) for f in getattr(k, "__struct_fields__", ())]
            what += near(wrong[1], (*fields, *choices(kind, path)))
        raise InputError(": ".join(filter(None, (source, path, what)))) from error


def _parts(kind: Any) -> Iterator[Any]:
    """Yield a type with its alternatives and elements."""
    yield kind
    if get_origin(kind) is not Literal:
        for part in get_args(kind):
            yield from _parts(part)


def _at(kind: Any, path: str) -> list[Any]:
    """Return the types there are at a dotted path of a type; indices and keys are passed over."""
    here = list(_parts(kind))
    for step in filter(None, path.split(".")):
        inside = [k for k in here if step in getattr(k, "__struct_fields__", ())]
        here = [part for k in inside for part in _parts(get_type_hints(k)[step])] or here
    return here


def choices(kind: Any, path: str) -> tuple[str, ...]:
    """Return what a field of a type may be, by its dotted path; empty where it is free."""
    literals = [k for k in _at(kind, path) if get_origin(k) is Literal]
    return tuple(str(word) for k in literals for word in get_args(k))
