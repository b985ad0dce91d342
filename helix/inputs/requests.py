"""Requests: how long they are and when they arrive.

Lengths and arrivals are those of the Azure LLM inference trace 2023 as the artifact filtered it;
the generator draws with Python's `random` exactly as the artifact's does. A trace of one's own is
a CSV file, or one in the format of the Azure trace.
"""

import csv
import math
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from pathlib import Path

import msgspec

from common.errors import InputError

INTERVAL_S = 3.0  # the recorded hour is counted in intervals of this length
LONGEST_INPUT, LONGEST_OUTPUT, SHORTEST = 2048, 1024, 4  # what the artifact keeps of a trace


class Request(msgspec.Struct, frozen=True):
    """One query: tokens of its prompt and of its answer."""

    input: int
    output: int


class Arrival(msgspec.Struct, frozen=True):
    """A query that arrives `time_s` after the service begins."""

    time_s: float
    input: int
    output: int


def _numbers(name: str) -> list[list[int]]:
    text = resources.files("helix").joinpath(f"data/{name}.csv").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return [[int(cell) for cell in row] for row in csv.reader(lines[1:])]


@cache
def azure_lengths() -> tuple[Request, ...]:
    """Return the lengths of the recorded conversations in list order."""
    return tuple(Request(*row) for row in _numbers("azure_conversation_lengths"))


@cache
def azure_counts() -> tuple[int, ...]:
    """Return how many conversations began in each interval of the recorded hour."""
    return tuple(row[0] for row in _numbers("azure_arrivals"))


def drawn_lengths(count: int, seed: int = 0) -> list[Request]:
    """Return so many lengths drawn from the recorded ones, with replacement."""
    draw, lengths = random.Random(seed), azure_lengths()
    return [lengths[draw.randint(0, len(lengths) - 1)] for _ in range(count)]


def generated_arrivals(
    tokens_per_s: float, duration_s: float, seed: int = 0, *, shuffled: bool = False
) -> list[Arrival]:
    """Return a trace of that many offered tokens (prompt and answer) per second on average.

    The recorded counts are scaled; `shuffled` draws each interval anew from the hour, as the
    artifact does, otherwise consecutive intervals follow from a drawn start.
    """
    if not (tokens_per_s > 0 and duration_s > 0):
        raise InputError(
            f"trace: {tokens_per_s} tokens/s for {duration_s} s, expected both above 0"
        )
    draw, lengths, counts = random.Random(seed), azure_lengths(), azure_counts()
    mean_tokens = sum(q.input + q.output for q in lengths) / len(lengths)
    scale = tokens_per_s / mean_tokens * INTERVAL_S / (sum(counts) / len(counts))
    start = 0 if shuffled else draw.randrange(len(counts))
    arrivals, residual = list[Arrival](), 0.0
    for interval in range(int(duration_s / INTERVAL_S)):
        place = draw.randint(0, len(counts) - 1) if shuffled else (start + interval) % len(counts)
        exact = counts[place] * scale + residual
        residual = exact - round(exact)
        for offset in sorted(draw.uniform(0, INTERVAL_S) for _ in range(round(exact))):
            request = lengths[draw.randint(0, len(lengths) - 1)]
            time_s = interval * INTERVAL_S + offset
            arrivals.append(Arrival(time_s, request.input, request.output))
    return arrivals


def read_arrivals(path: Path) -> list[Arrival]:
    """Return the queries of a CSV file, in order of time and counted from the first one's.

    Columns are arrival (seconds), input and output (tokens); or the Azure trace's own TIMESTAMP,
    ContextTokens and GeneratedTokens.
    """
    try:
        with path.open(newline="") as file:
            rows = csv.DictReader(file)
            azure = "TIMESTAMP" in (rows.fieldnames or ())
            read = _azure_arrival if azure else _own_arrival
            arrivals = [_checked(read, row, path, rows.line_num) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a trace: {error}") from None
    if not arrivals:
        raise InputError(f"{path}: the trace holds no requests")
    arrivals.sort(key=lambda arrival: arrival.time_s)
    begin = arrivals[0].time_s
    return [Arrival(a.time_s - begin, a.input, a.output) for a in arrivals]


def servable(arrivals: Sequence[Arrival]) -> list[Arrival]:
    """Return the queries that the artifact keeps: neither very short nor longer than the model."""
    return [
        a
        for a in arrivals
        if SHORTEST <= a.input <= LONGEST_INPUT and SHORTEST <= a.output <= LONGEST_OUTPUT
    ]


def _checked(
    read: Callable[[dict[str, str]], Arrival], row: dict[str, str], path: Path, line: int
) -> Arrival:
    try:
        arrival = read(row)
    except (KeyError, ValueError, TypeError):
        raise InputError(
            f"{path}, line {line}: expected a time and two whole numbers of tokens in columns"
            " arrival, input, output (or TIMESTAMP, ContextTokens, GeneratedTokens)"
        ) from None
    if not (math.isfinite(arrival.time_s) and arrival.input >= 1 and arrival.output >= 1):
        raise InputError(
            f"{path}, line {line}: arrival {arrival.time_s}, input {arrival.input}, output"
            f" {arrival.output}; expected a finite time and at least one token of each"
        )
    return arrival


def _own_arrival(row: dict[str, str]) -> Arrival:
    return Arrival(float(row["arrival"]), int(row["input"]), int(row["output"]))


def _azure_arrival(row: dict[str, str]) -> Arrival:
    # The trace writes seven decimals of a second; datetime reads six.
    moment = datetime.fromisoformat(row["TIMESTAMP"][:26]).replace(tzinfo=UTC)
    return Arrival(moment.timestamp(), int(row["ContextTokens"]), int(row["GeneratedTokens"]))
