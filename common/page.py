"""Show all artifacts' results on one self-contained page, report.html, and in claims.json."""

import html
import re
from datetime import UTC, datetime
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
    path = out / section.artifact / "section.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(section) + b"\n")
    return path


def render(out: Path) -> Path:
    """Write `<out>/report.html` and `<out>/claims.json` from every section under `out`."""
    import jinja2

    sections = [s for path in sorted(out.glob("*/section.json")) for s in read_lines(path, Section)]
    verdicts = [(s.artifact, verdict) for s in sections for verdict in s.verdicts]
    claims = [{"artifact": a} | {key: getattr(v, key) for key in _KEYS} for a, v in verdicts]
    (out / "claims.json").write_bytes(msgspec.json.format(msgspec.json.encode(claims)) + b"\n")
    source = Path(__file__).with_name("page.html.j2").read_text(encoding="utf-8")
    page = jinja2.Template(source, autoescape=True, undefined=jinja2.StrictUndefined)
    shows = {"columns": COLUMNS, "cells": cells, "number": number, "drawing": _drawing, "out": out}
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    text = page.render(shows, sections=sections, known=saved(out), now=now)
    (out / "report.html").write_text(text + "\n", encoding="utf-8")
    return out / "report.html"


def _drawing(out: Path, figure: Figure, name: str) -> str:
    """Return the SVG element of the figure's file, its ids made the page's own by a prefix."""
    svg = (out / figure.svg).read_text(encoding="utf-8")
    svg = re.sub(r"(?s)^.*?(?=<svg\b)|<metadata>.*?</metadata>|<script.*?</script>", "", svg)
    svg = re.sub(r"""(\sid=["']|href=["']#|url\(#)""", rf"\1{name}-", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(figure.alt)}"', 1)
