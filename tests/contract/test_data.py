"""DATA.md: a source and terms for every file of data, and for none that is not there."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
if not (ROOT / "DATA.md").exists():
    pytest.skip("an image has no table of data", allow_module_level=True)

ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (ROOT / "DATA.md").read_text().splitlines()
    if line.startswith("| `")
]
PATTERNS = [pattern for files, *_ in ROWS for pattern in re.findall(r"`([^`]+)`", files)]
PLACES = (
    "*/data/**/*",
    "*/paper/data/**/*",
    "common/*.toml",
    "tests/golden/**/*",
    "tests/common/**/*.csv",
    "tests/common/**/*.json",
    "tests/metis/*.csv",
)


def data_files() -> list[str]:
    found = {path for place in PLACES for path in ROOT.glob(place) if path.is_file()}
    mine = {path for path in found if not path.name.endswith((".pyc", ".py"))}
    return sorted(str(path.relative_to(ROOT)) for path in mine)


def fits(file: str, pattern: str) -> bool:
    """Whether it does, within one folder."""
    return fnmatchcase(file, pattern) and file.count("/") == pattern.count("/")


def test_every_file_of_data_has_one_row():
    counts = {file: sum(fits(file, pattern) for pattern in PATTERNS) for file in data_files()}
    assert {file: count for file, count in counts.items() if count != 1} == {}


def test_no_row_names_what_is_not_there():
    files = data_files()
    assert [p for p in PATTERNS if not any(fits(file, p) for file in files)] == []


def test_every_row_says_what_from_where_and_on_what_terms():
    assert len(ROWS) > 20
    assert [row for row in ROWS if len(row) != 4 or not all(row)] == []


def test_data_that_want_attribution_have_it():
    asked = [files for files, _, _, terms in ROWS if "NOTICE" in terms]
    assert asked
    assert "Azure LLM inference trace 2023" in (ROOT / "NOTICE").read_text()
