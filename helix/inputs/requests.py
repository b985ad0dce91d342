"""Requests: how long they are and when they arrive.

Lengths and arrivals are those of the Azure LLM inference trace 2023 as the artifact filtered it;
the generator draws with Python's `random` exactly as the artifact's does. A trace of one's own is
read by `helix.inputs.traces`.
"""

import csv
import random
from functools import cache
from importlib import resources

import msgspec

from common.errors import InputError

INTERVAL_S = 3.0  # the recorded hour is counted in intervals of this length


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
