"""Show all artifacts' results on one self-contained page, report.html, and in claims.json."""

import html
import logging
import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from common.claims import COLUMNS, Verdict, cells, number
from common.errors import InputError
from common.files import write
from common.provenance import saved

_KEYS = ("id", "suite", "expected", "value", "unit", "error", "tolerance", "verdict", "origin")


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of values; numbers are shown with the digits that count."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | int | float | bool | None, ...], ...]
    note: str = ""
    under: str = ""  # title of the figure that it explains


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A drawing: its SVG file relative to the results folder, and in words what it shows."""

    title: str
    svg: str
    alt: str
    note: str = ""


class Own(msgspec.Struct, frozen=True, kw_only=True):
    """What the page says of an experiment of the user's own."""

    experiment: str
    about: str
    command: str
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """What the page says of one artifact."""

    artifact: str
    title: str
    intro: str = ""
    number: str = ""  # the one that says most, in a sentence
    own: tuple[Own, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()  # that which says most first
    verdicts: tuple[Verdict, ...] = ()
    provenance: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def write_section(out: Path, section: Section) -> Path:
    """Write `<out>/<artifact>/section.json`, which `render` finds."""
    path = out / section.artifact / "section.json"
    return write(path, msgspec.json.encode(section) + b"\n")


def render(out: Path) -> Path:
    """Write `<out>/report.html` and `<out>/claims.json` from every section under `out`."""
    import jinja2

    sections = [s for path in sorted(out.glob("*/section.json")) for s in _read(path)]
    sections.sort(key=lambda section: not section.own)  # the user's own come first
    verdicts = [(s.artifact, verdict) for s in sections for verdict in s.verdicts]
    claims = [{"artifact": a} | {key: getattr(v, key) for key in _KEYS} for a, v in verdicts]
    write(out / "claims.json", msgspec.json.format(msgspec.json.encode(claims)) + b"\n")
    source = Path(__file__).with_name("page.html.j2").read_text(encoding="utf-8")
    page = jinja2.Template(source, autoescape=True, undefined=jinja2.StrictUndefined)
    shows = {"columns": COLUMNS, "cells": cells, "number": number, "drawing": _drawing, "out": out}
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    text = page.render(shows, sections=sections, known=saved(out), now=now)
    return write(out / "report.html", text + "\n")


def _read(path: Path) -> list[Section]:
    try:
        return [msgspec.json.decode(path.read_bytes(), type=Section)]
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: not a section of ours: {error}; report it again") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        logging.getLogger(__name__).warning("%s: damaged and left out: %s", path, error)
        return []


def _drawing(out: Path, figure: Figure, name: str) -> str:
    """Return the SVG element of the figure's file, its ids made the page's own by a prefix."""
    svg = (out / figure.svg).read_text(encoding="utf-8")
    svg = re.sub(r"(?s)^.*?(?=<svg\b)|<metadata>.*?</metadata>|<script.*?</script>", "", svg)
    svg = re.sub(r'\sd="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg)
    svg = re.sub(r"\s+", " ", svg)
    svg = re.sub(r"""(\sid=["']|href=["']#|url\(#)""", rf"\1{name}-", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(figure.alt)}"', 1)
