"""The original's INI files as text: sections, keys, numbers with units, lists.

The original hands values to Python's `eval`; here `number * unit` and flat lists are parsed and
nothing else is. Every complaint names the file and the line.
"""

import re
from collections.abc import Iterable, Mapping
from math import inf, nextafter
from pathlib import Path

import msgspec

from common.errors import InputError

RATES = {"kbps": 1e3, "mbps": 1e6, "gbps": 1e9}  # bytes per second, whatever the names say
SIZES = {"KB": 1e3, "MB": 1e6, "GB": 1e9}
TIMES = {"Sec": 1.0, "MilliSec": 0.001}
UNITS = RATES | SIZES | TIMES

_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?:\s*\*\s*(\w+))?")
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_QUOTED = re.compile(r"'([^'\"]*)'|\"([^'\"]*)\"")


class Value(msgspec.Struct, frozen=True):
    """The text after a key, and where it stands."""

    text: str
    key: str
    place: str  # file and line

    def wrong(self, expected: str) -> InputError:
        """Return the complaint about this value."""
        return InputError(f"{self.place}: {self.key} is {self.text!r}, expected {expected}")

    def number(self) -> float:
        """Return a number, times its unit if it has one."""
        match = _NUMBER.fullmatch(self.text)
        if not match or match[2] not in (None, *UNITS):
            raise self.wrong(f"a number or number * unit ({', '.join(UNITS)})")
        return float(match[1]) * UNITS.get(match[2] or "", 1.0)

    def whole(self, least: int = 0) -> int:
        """Return a whole number of at least `least`."""
        if not _WHOLE.fullmatch(self.text) or int(self.text) < least:
            raise self.wrong(f"a whole number from {least}")
        return int(self.text)

    def word(self) -> str:
        """Return a word, without quotes if it stands in some."""
        match = _QUOTED.fullmatch(self.text)
        word = (match[1] or match[2]) if match else self.text
        if not word or not re.fullmatch(r"[\w.:-]+", word):
            raise self.wrong("one word")
        return word

    def items(self) -> list[int | str]:
        """Return a flat list of whole numbers and quoted names."""
        inner = re.fullmatch(r"\[(.*)\]", self.text)
        if not inner:
            raise self.wrong("a list in brackets")
        parts = [part.strip() for part in inner[1].split(",")] if inner[1].strip() else []
        return [self._item(part) for part in parts]

    def wholes(self) -> list[int]:
        """Return a flat list of whole numbers from 0."""
        numbers = [item for item in self.items() if isinstance(item, int) and item >= 0]
        if len(numbers) != len(self.items()):
            raise self.wrong("a list of whole numbers from 0")
        return numbers

    def names(self) -> list[str]:
        """Return a flat list of different quoted names."""
        names = [item for item in self.items() if isinstance(item, str)]
        if len(set(names)) != len(self.items()):
            raise self.wrong("a list of different quoted names")
        return names

    def _item(self, part: str) -> int | str:
        if _WHOLE.fullmatch(part):
            return int(part)
        match = _QUOTED.fullmatch(part)
        if not match:
            raise self.wrong("a list of whole numbers or quoted names")
        return match[1] or match[2] or ""


class Section(msgspec.Struct, frozen=True):
    """A section: its keys' values, and where it begins."""

    name: str
    place: str
    values: dict[str, Value]

    def __getitem__(self, key: str) -> Value:
        """Return a key's value; a missing one is a complaint."""
        if key not in self.values:
            raise InputError(f"{self.place}: section [{self.name}] has no {key}")
        return self.values[key]


class Ini(msgspec.Struct, frozen=True):
    """A file's sections in their order."""

    path: Path
    sections: dict[str, Section]

    def __getitem__(self, name: str) -> Section:
        """Return a section; a missing one is a complaint."""
        if name not in self.sections:
            raise InputError(f"{self.path}: section [{name}] is missing")
        return self.sections[name]


def read_text(path: Path) -> str:
    """Return a file's text; one that cannot be read is a complaint."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from error


def read_ini(path: Path) -> Ini:
    """Return the sections of a file; lines that begin with # or ; are left out."""
    ini = Ini(path, {})
    section: Section | None = None
    for number, line in enumerate(read_text(path).splitlines(), 1):
        text, place = line.strip(), f"{path}:{number}"
        if not text or text[0] in "#;":
            continue
        if text[0] == "[" and text[-1] == "]":
            section = _add_section(ini, text[1:-1].strip(), place)
        elif section is None or "=" not in text:
            raise InputError(f"{place}: {text!r} is neither a section nor key=value in one")
        else:
            _add_value(section, text, place)
    return ini


def _add_section(ini: Ini, name: str, place: str) -> Section:
    if name in ini.sections:
        raise InputError(f"{place}: section [{name}] is given twice")
    ini.sections[name] = Section(name, place, {})
    return ini.sections[name]


def _add_value(section: Section, text: str, place: str) -> None:
    key, value = (part.strip() for part in text.split("=", 1))
    if key in section.values:
        raise InputError(f"{place}: {key} is given twice in section [{section.name}]")
    section.values[key] = Value(value, key, place)


def written(sections: Iterable[tuple[str, Mapping[str, object]]]) -> str:
    """Return the text of a file: sections with a blank line after each."""
    blocks = (
        "\n".join([f"[{name}]", *(f"{key}={value}" for key, value in values.items())]) + "\n\n"
        for name, values in sections
    )
    return "".join(blocks)


def quantity(value: float, unit: str) -> str:
    """Return `number * unit` that is read back as exactly this value, where there is such."""
    return f"{_multiple(value, UNITS[unit])} * {unit}"


def short_quantity(value: float, unit: str) -> str:
    """Return the same with whole numbers written without a point."""
    size = UNITS[unit]
    nearest = round(value / size)
    return f"{nearest} * {unit}" if nearest * size == value else quantity(value, unit)


def _multiple(value: float, size: float) -> float:
    first = value / size
    near = (first, nextafter(first, 0.0), nextafter(first, inf))
    return next((number for number in near if number * size == value), first)
