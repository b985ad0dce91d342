"""Show all artifacts' results on one self-contained page, report.html, and in claims.json."""

import html
import re
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from common.claims import COLUMNS, Verdict, cells, number
from common.provenance import saved
from common.record import read_lines

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
    return _write(Path(out, section.artifact, "section.json"), msgspec.json.encode(section))


def render(out: Path) -> Path:
    """Write `<out>/report.html` and `<out>/claims.json` from every section under `out`."""
    import jinja2

    paths = sorted(Path(out).glob("*/section.json"))
    sections = [section for path in paths for section in read_lines(path, Section)]
    verdicts = [(s.artifact, verdict) for s in sections for verdict in s.verdicts]
    claims = [{"artifact": a} | {key: getattr(v, key) for key in _KEYS} for a, v in verdicts]
    _write(Path(out, "claims.json"), msgspec.json.format(msgspec.json.encode(claims)))
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    page = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    text = page.get_template("page.html.j2").render(
        {"columns": COLUMNS, "cells": cells, "number": number, "known": saved(out)},
        sections=sections,
        drawing=partial(_drawing, Path(out)),
        now=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    return _write(Path(out, "report.html"), text.encode())


def _drawing(out: Path, figure: Figure, name: str) -> str:
    """Return the SVG element of the figure's file, its ids made the page's own by a prefix."""
    svg = (out / figure.svg).read_text(encoding="utf-8")
    svg = re.sub(r"(?s)^.*?(?=<svg\b)|<metadata>.*?</metadata>|<script.*?</script>", "", svg)
    svg = re.sub(r"""(\sid=["']|href=["']#|url\(#)""", rf"\1{name}-", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(figure.alt)}"', 1)


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(content.rstrip(b"\n") + b"\n")
    return part.replace(path)
