"""Show all artifacts' results on one self-contained page, report.html, and in claims.json."""

import html
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from common.claims import COLUMNS, Verdict, cells, number
from common.errors import InputError
from common.provenance import load

_KEYS = ("id", "suite", "expected", "value", "unit", "error", "tolerance", "verdict", "origin")


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of values; numbers are shown with the digits that count."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | int | float | bool | None, ...], ...]
    note: str = ""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A drawing: its SVG file relative to the results folder, and in words what it shows."""

    title: str
    svg: str
    alt: str
    note: str = ""


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """What the page says of one artifact."""

    artifact: str
    title: str
    intro: str = ""
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    provenance: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def write_section(out: Path, section: Section) -> Path:
    """Write `<out>/<artifact>/section.json`, which `render` finds."""
    text = msgspec.json.format(msgspec.json.encode(section)).decode()
    return _write(Path(out, section.artifact, "section.json"), text)


def render(out: Path) -> Path:
    """Write `<out>/report.html` and `<out>/claims.json` from every section under `out`."""
    import jinja2

    sections = [_section(path) for path in sorted(Path(out).glob("*/section.json"))]
    claims = [
        {"artifact": s.artifact} | {key: getattr(v, key) for key in _KEYS}
        for s in sections
        for v in s.verdicts
    ]
    _write(Path(out, "claims.json"), msgspec.json.format(msgspec.json.encode(claims)).decode())
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    page = jinja2.Environment(
        loader=loader,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    text = page.get_template("page.html.j2").render(
        sections=sections,
        columns=COLUMNS,
        cells=cells,
        number=number,
        known={name: _facts(out, name) for s in sections for name in s.provenance},
        drawing=partial(_drawing, Path(out)),
        now=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    return _write(Path(out, "report.html"), text)


def _section(path: Path) -> Section:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Section)
    except msgspec.DecodeError as error:
        raise InputError(f"{path}: {error}; let that artifact's `report` write it again") from error


def _facts(out: Path, name: str) -> Mapping[str, Any]:
    try:
        return load(out, name)
    except InputError as error:
        return {"lost": str(error)}


def _drawing(out: Path, figure: Figure, name: str) -> str:
    """Return the SVG element of the figure's file, its ids made the page's own by a prefix."""
    svg = (out / figure.svg).read_text(encoding="utf-8")
    svg = re.sub(r"(?s)^.*?(?=<svg\b)|<metadata>.*?</metadata>|<script.*?</script>", "", svg)
    svg = re.sub(r"""(\sid=["']|href=["']#|url\(#)""", rf"\1{name}-", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(figure.alt)}"', 1)


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    return part.replace(path)
