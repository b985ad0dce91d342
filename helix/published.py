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


@cache
def _rows() -> list[dict[str, str]]:
    text = resources.files("helix").joinpath("data/published_results.csv").read_text()
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


def printed(
    where: str, model: str, system: str, mode: str, kind: str = "simulation"
) -> Result | None:
    """Return the block of a system (`helix`, `swarm`, `separate`), None if there is none."""
    for row in _rows():
        words = row["command"].split()
        there = SECTIONS[where] in row["paper_section"] and row["kind"] == kind
        if there and {system, mode} <= {*words} and (where == "het" or model in words):
            return Result(
                float(row["decode_tokens_per_s"]), _percentiles(row, "prompt"),
                _percentiles(row, "decode"),
            )  # fmt: skip
    return None


def _percentiles(row: dict[str, str], phase: str) -> tuple[float, ...]:
    cells = [row[f"{phase}_{p}_s"] for p in ("p5", "p25", "p50", "p75", "p95")]
    return tuple(map(float, cells)) if all(cells) else ()
