"""Turn what a user names, writes or overrides into one checked experiment, a frozen struct.

Whatever is wrong is an `InputError` that names the place, what was found and what was expected.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from common.errors import InputError

T = TypeVar("T")
Tree = dict[str, "Tree"] | list["Tree"] | str | float | None  # float holds int and bool too


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
        near = _near(name_or_path, list(named))
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
    except (OSError, ValueError) as error:  # not readable, not UTF-8, not TOML
        raise InputError(f"{path}: {getattr(error, 'strerror', error)}") from error
    return _checked(data, kind, str(path))


def to_toml(struct: msgspec.Struct) -> str:
    """Return the TOML text that `resolve` reads back to an equal struct.

    TOML has no null: a field that is None is left out, so None has to be its default.
    """
    return "".join(f"{line}\n" for line in _lines(_plain(struct)))


def case_id(config: object) -> str:
    """Return 16 hex digits that name this configuration, whatever the order of its keys."""
    text = json.dumps(_plain(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: object) -> Any:
    """Return dicts, lists and scalars of one's own; infinities stay, which msgspec would lose."""
    return json.loads(json.dumps(msgspec.to_builtins(value, str_keys=True)))


def _checked(data: Tree, kind: type[T], source: str) -> T:
    if message := _error(data, kind):
        raise InputError(f"{source}: {_explain(message, data, kind)}")
    return msgspec.convert(data, kind, str_keys=True)


def _error(data: Tree, kind: Any) -> str:
    try:
        msgspec.convert(data, kind, str_keys=True)
    except msgspec.ValidationError as error:
        return str(error)
    return ""


def _explain(message: str, found: Any, kind: type) -> str:
    """Return msgspec's message with the field first, the value found and what comes close."""
    what, _, where = message.rpartition(" - at ") if message.endswith("`") else (message, "", "")
    what, steps, types = what or message, list[str](), [kind]
    for name, index in re.findall(r"\.([^.\[`]+)|\[(\d+|\.\.\.)\]", where):
        step = name or index
        if step == "...":  # msgspec hides a dict's key
            step = next(key for key in found if all(_error({key: found[key]}, t) for t in types))
        found, types = found[int(step) if isinstance(found, list) else step], _below(types, step)
        steps.append(step)
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", what):
        known = [field for t in types for field in getattr(t, "__struct_encode_fields__", ())]
        what = f"unknown field '{unknown[1]}'{_near(unknown[1], known)}"
    elif expected := re.match(r"Invalid|Expected (.*?)(?:, got|$)", what):
        known = [str(value) for t in types if get_origin(t) is Literal for value in get_args(t)]
        what = f"found {found!r:.60}" + (f", expected {expected[1]}" if expected[1] else "")
        what += _near(str(found), known)
    what = what.replace("Object missing required", "missing").replace("`object", "`table")
    return f"{'.'.join(steps)}: {what}" if steps else what


def _below(types: Sequence[Any], step: str) -> list[Any]:
    """Return the types that a field or item of a value of one of the types may have."""
    below = list[Any]()
    for t in types:
        fields = get_type_hints(t) if hasattr(t, "__struct_fields__") else {}
        child = fields.get(step, next((a for a in reversed(get_args(t)) if a is not ...), None))
        below += get_args(child) if get_origin(child) in (Union, UnionType) else [child]
    return below


def _near(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, known, n=3)
    choice = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(known)}"
    return f"; {choice}" if known else ""


def _override(data: Any, override: str, kind: type) -> Any:
    path, sign, text = override.partition("=")
    steps: list[str] = [quoted or bare for quoted, bare in re.findall(r'"(.*?)"|([^."]+)', path)]
    if not sign or not steps:
        raise InputError(f"--set {override}: write path=value, such as cluster.machines.0.gpus=8")
    try:
        value = None if text == "null" else tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    try:
        changed = _put(data, steps, value)
    except (LookupError, ValueError, AttributeError) as error:
        raise InputError(f"--set {override}: there is no place '{path}' to set") from error
    wants_text = _error(changed, kind).startswith("Expected `str")  # as does `--set name=8`
    return _put(data, steps, text) if wants_text else changed


def _put(node: Any, steps: Sequence[str], value: object) -> Any:
    """Return a copy with the value at the end of the steps; tables that are None are begun."""
    if not steps:
        return value
    if isinstance(node, list):
        items: list[Any] = [*node]
        items[int(steps[0])] = _put(items[int(steps[0])], steps[1:], value)
        return items
    table: dict[str, Any] = {} if node is None else node.copy()
    return table | {steps[0]: _put(table.get(steps[0]), steps[1:], value)}


def _lines(value: Tree, path: str = "") -> Iterator[str]:
    """Yield `a.b = value` for each leaf of a table, with the keys that `--set` takes."""
    if isinstance(value, dict) and any(item is not None for item in value.values()):
        for key, item in value.items():
            name = key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _inline(key)
            yield from _lines(item, f"{path}.{name}" if path else name)
    elif value is not None and path:
        yield f"{path} = {_inline(value)}"


def _inline(value: Tree) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(_lines(value))}}}"
    if isinstance(value, list):
        deep = any(isinstance(item, list | dict) for item in value)
        start, comma, end = ("\n    ", ",\n    ", ",\n") if deep else ("", ", ", "")
        return f"[{start}{comma.join(map(_inline, value))}{end}]"
    if value is None:
        raise ValueError("TOML cannot hold the None that stands in a list")
    text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return {"Infinity": "inf", "-Infinity": "-inf", "NaN": "nan"}.get(text, text)
