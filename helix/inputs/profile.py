"""Measured profiles of one model: layer times and limits of every kind of machine.

Times are of one layer, by batch size, interpolated between measured sizes. Limits depend on how
many layers a machine holds, because the weights leave the rest of its memory to the KV cache.
"""

import csv
from bisect import bisect_left
from functools import cache
from importlib import resources
from pathlib import Path

import msgspec

from common.errors import InputError

PARTS = ("times", "limits")
"""The CSV files of a folder of measured profiles."""

KV_BLOCK_TOKENS = 16
PROMPT_CAP_TOKENS = 2048  # the longest prompt; prompts per batch times this is the token limit
CONTEXT_CAP_TOKENS = 1000  # contexts per decode slot


class Curve(msgspec.Struct, frozen=True):
    """Seconds by number of tokens, piecewise linear from (0, 0)."""

    tokens: tuple[int, ...]
    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse knots that do not rise from zero."""
        if not self.tokens or self.tokens[0] != 0 or list(self.tokens) != sorted({*self.tokens}):
            raise InputError("profile: batch sizes have to rise from 0")

    def __call__(self, size: float) -> float:
        """Return the seconds for a batch of `size` tokens; beyond the last knot is an error."""
        right = bisect_left(self.tokens, size)
        if right == len(self.tokens):
            raise InputError(f"profile: {size} tokens are beyond the measured {self.tokens[-1]}")
        if self.tokens[right] == size:
            return self.seconds[right]
        x0, x1 = self.tokens[right - 1], self.tokens[right]
        y0, y1 = self.seconds[right - 1], self.seconds[right]
        return y0 + (y1 - y0) * (size - x0) / (x1 - x0)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine takes at once while it holds a certain number of layers."""

    kv_entries: int  # tokens times layers
    prompt_requests: int
    decode_requests: int

    @property
    def prompt_tokens(self) -> int:
        """Most prompt tokens in a batch."""
        return self.prompt_requests * PROMPT_CAP_TOKENS

    @property
    def context_tokens(self) -> int:
        """Most tokens of context over the decodes in a batch."""
        return self.decode_requests * CONTEXT_CAP_TOKENS


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of machine with one model; `limits[k - 1]` holds while it keeps k layers."""

    prompt: Curve
    decode: Curve
    limits: tuple[Limits, ...]
    memory: float = 0.0  # bytes; 0: not known, the limits were measured

    @property
    def max_layers(self) -> int:
        """The most layers this machine may hold."""
        return len(self.limits)


Profiles = dict[str, Profile]


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


def _curve(rows: list[dict[str, str]], machine: str, phase: str) -> Curve:
    mine = [row for row in rows if row["machine"] == machine and row["phase"] == phase]
    tokens = tuple(int(row["tokens"]) for row in mine)
    # The product, not the nearest double to the quotient: simulated times tie to the last bit.
    return Curve(tokens, tuple(float(row["milliseconds"]) * 0.001 for row in mine))


def _limits(rows: list[dict[str, str]], machine: str) -> tuple[Limits, ...]:
    found = list[Limits]()
    for held, row in enumerate((row for row in rows if row["machine"] == machine), 1):
        what = f"profile: {machine} with {row['layers']} layers"
        if int(row["layers"]) != held:
            raise InputError(f"{what}: expected rows for 1, 2, ... layers in this order")
        for column in ("kv_blocks", "prompt_max_requests", "decode_max_tokens"):
            if int(row[column]) < 1:
                raise InputError(
                    f"{what}: {column} is {row[column]}, expected 1 or more; leave out the rows of"
                    " as many layers as do not fit"
                )
        found.append(
            Limits(
                kv_entries=KV_BLOCK_TOKENS * int(row["kv_blocks"]) * held,
                prompt_requests=int(row["prompt_max_requests"]),
                decode_requests=int(row["decode_max_tokens"]),
            )
        )
    return tuple(found)


def _profiles(times: list[dict[str, str]], limits: list[dict[str, str]]) -> Profiles:
    return {
        machine: Profile(
            prompt=_curve(times, machine, "prompt"),
            decode=_curve(times, machine, "decode"),
            limits=_limits(limits, machine),
        )
        for machine in dict.fromkeys(row["machine"] for row in limits)
    }


@cache
def shipped_profiles(model: str) -> Profiles:
    """Return the artifact's measurements of `llama1_30b` or `llama2_70b`."""
    data = resources.files("helix").joinpath("data")
    texts = [data.joinpath(f"{model}_{part}.csv").read_text() for part in PARTS]
    return _profiles(*map(_rows, texts))


def read_profiles(folder: Path) -> Profiles:
    """Return the profiles of a folder with `times.csv` and `limits.csv`, columns as shipped."""
    try:
        texts = [Path(folder, f"{part}.csv").read_text() for part in PARTS]
        return _profiles(*map(_rows, texts))
    except OSError as error:
        raise InputError(f"{error.filename}: {error.strerror}") from error
    except KeyError as error:
        raise InputError(f"{folder}: the profile files have no column {error}") from error
    except ValueError as error:
        raise InputError(f"{folder}: not a profile: {error}") from error
