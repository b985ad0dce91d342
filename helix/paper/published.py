"""The artifact's printed results, to set beside ours; nothing is computed from them."""

import csv
from functools import cache
from importlib import resources
from typing import NamedTuple

SECTIONS = {"single": "6.3", "geo": "6.4", "het": "6.5"}


class Result(NamedTuple):
    """One printed block: decoded tokens/s and, online, percentiles of latency in seconds."""

    decode: float
    prompt_s: tuple[float, ...]
    decode_s: tuple[float, ...]


def _rows() -> list[dict[str, str]]:
    return _table("published_results.csv")


@cache
def _table(name: str) -> list[dict[str, str]]:
    text = resources.files("helix.paper").joinpath(f"data/{name}").read_text()
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


def printed(
    where: str, model: str, system: str, mode: str, kind: str = "simulation"
) -> Result | None:
    """Return the block of a system (`helix`, `swarm`, `separate`), None if there is none."""
    for row in _rows():
        words = row["command"].split()
        there = SECTIONS[where] in row["paper_section"] and row["kind"] == kind
        if there and {system, mode} <= {*words} and (where == "het" or model in words):
            return _result(row)
    return None


def deep_dive(section: str, system: str, kind: str = "simulation") -> Result | None:
    """Return the block of a placement (6.6) or scheduler (6.7), None if there is none."""
    for row in _rows():
        there = section in row["paper_section"] and row["kind"] == kind
        if there and row["command"].split()[-1] == system:
            return _result(row)
    return None


def milp_incumbents(experiment: str) -> tuple[tuple[float, float], ...]:
    """Return when the artifact's solver found what: seconds and flow in tokens/s."""
    rows = _table("published_milp.csv")
    mine = [row for row in rows if row["experiment"] == experiment]
    return tuple((float(row["seconds"]), float(row["best"])) for row in mine)


def _result(row: dict[str, str]) -> Result:
    return Result(
        float(row["decode_tokens_per_s"]), _percentiles(row, "prompt"), _percentiles(row, "decode")
    )


def _percentiles(row: dict[str, str], phase: str) -> tuple[float, ...]:
    cells = [row[f"{phase}_{p}_s"] for p in ("p5", "p25", "p50", "p75", "p95")]
    return tuple(map(float, cells)) if all(cells) else ()
