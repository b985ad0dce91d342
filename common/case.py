"""Turn what a user names, writes or overrides into one checked experiment value.

An experiment is a frozen msgspec struct. It comes from a named experiment or from a TOML file of
the same fields, and `--set path=value` changes single fields; whatever is wrong is an
`InputError` that names the place, what was found there and what was expected.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from common.errors import InputError

T = TypeVar("T")
Tree = dict[str, "Tree"] | list["Tree"] | str | float | None  # float covers int and bool


def resolve(
    name_or_path: str, named: Mapping[str, T], kind: type[T], overrides: Sequence[str] = ()
) -> T:
    """Return the experiment of that name or TOML file, with the overrides applied.

    An override is `path=value` with a dotted path (`stages.0.layers=3`; a key that holds dots in
    double quotes) and a TOML value, a bare word or `null`. The result is checked as a whole.
    """
    if name_or_path in named:
        value, source = named[name_or_path], f"experiment '{name_or_path}'"
    elif name_or_path.endswith(".toml") or Path(name_or_path).is_file():
        value, source = read_toml(Path(name_or_path), kind), name_or_path
    else:
        near = _near(name_or_path, named)
        raise InputError(f"'{name_or_path}' is neither an experiment nor a TOML file{near}")
    data = _plain(value)
    for override in overrides:
        data = _override(data, override, kind)
        source += f" with --set {override}"
    return _checked(data, kind, source)


def read_toml(path: Path, kind: type[T]) -> T:
    """Return the TOML file's content as a `kind`."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from error
    return _checked(data, kind, str(path))


def to_toml(struct: msgspec.Struct) -> str:
    """Return the TOML text that `resolve` reads back to an equal struct.

    TOML has no null: a field that is None is left out, so None has to be its default.
    """
    return "\n".join(_table(_plain(struct), "")).strip() + "\n"


def case_id(config: object) -> str:
    """Return 16 hex digits that name this configuration, whatever the order of its keys."""
    text = json.dumps(_plain(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: object) -> Any:
    """Return dicts, lists and scalars of one's own; infinities stay, which JSON would lose."""
    return json.loads(json.dumps(msgspec.to_builtins(value, str_keys=True)))


def _checked(data: Tree, kind: type[T], source: str) -> T:
    try:
        return msgspec.convert(data, kind, str_keys=True)
    except msgspec.ValidationError as error:
        raise InputError(f"{source}: {_explain(str(error), data, kind)}") from error


def _explain(message: str, data: Tree, kind: type) -> str:
    """Return msgspec's message with the field first, the value found and what comes close."""
    what, _, where = message.partition(" - at ")
    steps = _steps(where, data, kind, message)
    place, types = ".".join(steps), _types(inspect.type_info(kind), steps)
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", what):
        fields = [field.encode_name for t in types for field in getattr(t, "fields", ())]
        what = f"unknown field '{unknown[1]}'{_near(unknown[1], fields)}"
    elif what.startswith(("Expected", "Invalid enum")):
        found = _at(data, steps)
        options = [str(v) for t in types for v in getattr(t, "values", ())]
        what = f"found {found!r}: {what}{_near(str(found), options)}"
    return f"{place}: {what}" if place else what


def _steps(where: str, data: Tree, kind: type, message: str) -> list[str]:
    """Return the steps of msgspec's path; the key that `[...]` hides is found by trial."""
    steps: list[str] = []
    for name, index in re.findall(r"\.([^.\[`]+)|\[(\d+|\.\.\.)\]", where):
        if index == "...":
            table, name = _at(data, steps), "..."
            for key in table if isinstance(table, dict) else ():
                trial = _plain(data)
                _put(trial, steps, {key: table[key]}, "")
                try:
                    msgspec.convert(trial, kind, str_keys=True)
                except msgspec.ValidationError as error:
                    name = key if str(error) == message else name
        steps.append(name or index)
    return steps


def _at(data: Tree, steps: Iterable[str]) -> Tree:
    for step in steps:
        data = data[int(step)] if isinstance(data, list) else data[step]  # pyright: ignore
    return data


def _types(t: inspect.Type, steps: Sequence[str]) -> list[inspect.Type]:
    """Return the types that the value at the end of the steps may have."""
    if isinstance(t, inspect.Metadata):
        return _types(t.type, steps)
    if isinstance(t, inspect.UnionType):
        return [found for member in t.types for found in _types(member, steps)]
    if not steps:
        return [t]
    if isinstance(t, inspect.StructType):
        below = [field.type for field in t.fields if field.encode_name == steps[0]]
    elif isinstance(t, inspect.TupleType):
        below = [item for i, item in enumerate(t.item_types) if str(i) == steps[0]]
    else:
        below = [getattr(t, name) for name in ("item_type", "value_type") if hasattr(t, name)]
    return [found for child in below for found in _types(child, steps[1:])]


def _near(name: str, known: Iterable[str]) -> str:
    known = list(known)
    if close := get_close_matches(name, known, n=3):
        return f"; did you mean {' or '.join(map(repr, close))}?"
    return f"; known are {', '.join(known)}" if known else ""


def _override(data: Tree, override: str, kind: type) -> Tree:
    path, sign, text = override.partition("=")
    steps: list[str] = [quoted or bare for quoted, bare in re.findall(r'"(.*?)"|([^."]+)', path)]
    if not sign or not steps:
        raise InputError(f"--set {override}: write path=value, such as cluster.machines.0.gpus=8")
    return _put(data, steps, _value(text, _types(inspect.type_info(kind), steps)), override)


def _value(text: str, types: Sequence[inspect.Type]) -> Tree:
    """Return the TOML value of the text, or the text where a string belongs or no TOML is."""
    try:
        value = None if text == "null" else tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    words = any(isinstance(t, inspect.StrType) or text in getattr(t, "values", ()) for t in types)
    numeric = (inspect.IntType, inspect.FloatType, inspect.BoolType)
    if value is None or isinstance(value, str) or any(isinstance(t, numeric) for t in types):
        return value
    return text if words else value


def _put(node: Tree, steps: Sequence[str], value: Tree, override: str) -> Tree:
    """Return `node` with the value at the end of the steps; tables that are None are begun."""
    if not steps:
        return value
    key, node = steps[0], {} if node is None else node
    if isinstance(node, dict):
        node[key] = _put(node.get(key), steps[1:], value, override)
    elif not isinstance(node, list):
        raise InputError(f"--set {override}: there is no '{key}' in the value {node!r}")
    elif not key.isdecimal() or int(key) >= len(node):
        raise InputError(f"--set {override}: '{key}' is no index into {len(node)} items")
    else:
        node[int(key)] = _put(node[int(key)], steps[1:], value, override)
    return node


def _table(table: dict[str, Tree], path: str) -> list[str]:
    """Return the lines of a TOML table: first its values, then the tables below it."""
    lines, below = list[str](), list[str]()
    for key, value in table.items():
        name = key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _inline(key)
        if isinstance(value, dict):
            below += ["", f"[{path}{name}]", *_table(value, f"{path}{name}.")]
        elif value and isinstance(value, list) and all(isinstance(item, dict) for item in value):
            for item in value:
                below += ["", f"[[{path}{name}]]", *_table(item, f"{path}{name}.")]  # pyright: ignore
        elif value is not None:
            lines.append(f"{name} = {_inline(value)}")
    return lines + below


def _inline(value: Tree) -> str:
    if isinstance(value, str):  # JSON's escapes are TOML's, save that TOML escapes DEL too
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(_inline, value))}]"
    if isinstance(value, dict):
        pairs = [f"{_inline(k)} = {_inline(v)}" for k, v in value.items() if v is not None]
        return f"{{{', '.join(pairs)}}}"
    if value is None:
        raise ValueError("TOML cannot hold the None that stands in a list")
    return str(value).lower() if isinstance(value, bool) else repr(value)
