"""Print an experiment as TOML that teaches: each field with its meaning, unit and choices.

Tables that are wholly at their defaults stand at the end, commented out, so that what is left to
edit fits on a screen. The text reads back equal.
"""

import ast
import inspect
import textwrap
from functools import cache
from typing import Any, cast, get_type_hints

import msgspec
import tomli_w

from common.case import choices, plain

WIDTH = 100


def taught(experiment: msgspec.Struct, *, everything: bool = False) -> str:
    """Return the experiment as TOML with comments; `everything`: nothing folded."""
    live, folded = list[str](), list[str]()
    _table("", experiment, live, None if everything else folded)
    if folded:
        live += ["", "# What follows has its default values; take the '# ' away to change one."]
        live += [f"# {line}" if line else "" for line in "\n".join(folded).split("\n")]
    return "\n".join(live).lstrip("\n") + "\n"


@cache
def meanings(kind: type) -> dict[str, str]:
    """Return the docstring below each field of a struct, on one line; empty where there is none."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    found = dict.fromkeys(kind.__annotations__, "")
    for line, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            text = following.value if isinstance(following, ast.Expr) else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                found[line.target.id] = " ".join(text.value.split())
    return found


def comment(kind: type, name: str) -> str:
    """Return what is said of a field: its meaning, then its choices where it has some."""
    known = choices(kind, name)
    said = [meanings(kind).get(name, "").rstrip("."), f"one of {', '.join(known)}"]
    return "; ".join(part for part in said[: 1 + bool(known)] if part)


def _table(path: str, struct: Any, live: list[str], folded: list[str] | None) -> None:
    kind = cast(Any, type(struct))
    below = list[tuple[str, Any, bool]]()
    for field in msgspec.structs.fields(kind):
        value = getattr(struct, field.name)
        here = f"{path}.{field.name}" if path else field.name
        if _is_table(value):
            below.append((here, value, _default(field) == value))
        else:
            live += _line(kind, field.name, value)
    for here, value, default in below:
        lines = folded if default and folded is not None else live
        inner = get_type_hints(kind)[here.rpartition(".")[2]]
        about = inspect.getdoc(inner) if inspect.isclass(inner) else ""
        about = meanings(kind)[here.rpartition(".")[2]] or (about or "").partition("\n")[0]
        _below(here, value, lines, None if lines is folded else folded, about)


def _below(path: str, value: Any, lines: list[str], folded: list[str] | None, about: str) -> None:
    lines += ["", *_wrapped(about)]
    if isinstance(value, msgspec.Struct):
        lines.append(f"[{path}]")
        _table(path, value, lines, folded)
    elif isinstance(value, dict):
        tables = cast(dict[str, Any], value)
        scalars = {k: v for k, v in tables.items() if not _is_table(v)}
        if scalars or not tables:
            lines += [f"[{path}]", *tomli_w.dumps(plain(scalars)).split("\n")[:-1]]
        for key, inner in tables.items():
            if _is_table(inner):
                _below(f"{path}.{_key(key)}", inner, lines, folded, "")
    else:
        for row in value:
            lines.append(f"[[{path}]]")
            _table(path, row, lines, None)


def _default(field: msgspec.structs.FieldInfo) -> object:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def _is_table(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        rows: list[Any] = list(value)  # pyright: ignore[reportUnknownArgumentType]
        return bool(rows) and all(isinstance(row, msgspec.Struct) for row in rows)
    return isinstance(value, (msgspec.Struct, dict))


def _line(kind: type, name: str, value: Any) -> list[str]:
    said = comment(kind, name)
    if value is None or value is msgspec.UNSET:
        return _wrapped(f"{name} = ... {'(' + said + '; ' if said else '('}not set)")
    text = tomli_w.dumps({name: plain(value)}).rstrip("\n")
    if len(text) <= 80:  # a short array in one line; no string holds a bare line break
        text = text.replace("[\n    ", "[").replace(",\n    ", ", ").replace(",\n]", "]")
    if said and len(text) + len(said) + 4 <= WIDTH:
        return [f"{text}  # {said}"]
    return [*_wrapped(said), text]


def _wrapped(said: str) -> list[str]:
    return textwrap.wrap(said, WIDTH, initial_indent="# ", subsequent_indent="# ")


def _key(name: object) -> str:
    return tomli_w.dumps({str(name): 0}).partition(" = ")[0]
