"""Published points beside which ours are shown (`paper/data/published.csv`)."""

import csv
from functools import cache
from importlib import resources
from typing import NamedTuple


class Key(NamedTuple):
    """A point of a figure."""

    experiment: str
    sweep: str
    x: float
    method: str


@cache
def _read(name: str) -> dict[Key, float]:
    text = resources.files("beta.paper").joinpath(f"data/{name}.csv").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {
        Key(row["experiment"], row["sweep"], float(row["x"]), row["method"]): float(
            row["attainment"]
        )
        for row in csv.DictReader(lines)
    }


def points() -> dict[Key, float]:
    """Return the published attainment of each point, three decimals."""
    return _read("published")


def original_runs() -> dict[Key, float]:
    """Return attainments of the original's code, run with our stand-in profile; six decimals."""
    return _read("original_large")
