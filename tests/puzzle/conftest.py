"""What the tests of Puzzle share."""

import csv
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[1] / "golden" / "puzzle"


@pytest.fixture(scope="session")
def golden():
    """Return the rows of a golden file by its name."""

    def rows(name: str) -> list[dict[str, str]]:
        with (GOLDEN / f"{name}.csv").open() as file:
            return list(csv.DictReader(file))

    return rows


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small tensors are computed by one thread: more would only wait for each other."""
    import torch

    torch.set_num_threads(1)
