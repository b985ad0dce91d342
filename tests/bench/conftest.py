"""One table for the session, written after every measure where results go."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.yardstick import Table

RESULTS = Path(os.environ.get("RESULTS") or Path(__file__).parents[2] / "results")


@pytest.fixture(scope="session")
def whole_table() -> Table:
    return Table()


@pytest.fixture
def table(whole_table: Table) -> Iterator[Table]:
    yield whole_table
    whole_table.write(RESULTS / "bench.md")
