"""The public forms of request traces: what their columns are called and mean.

Azure LLM inference 2023, 2024 and 2025, BurstGPT in its three forms, Mooncake, vidur,
splitwise-sim, LLMServingSim, and a CSV of one's own.
"""

import math
import re
from datetime import UTC, datetime
from typing import NamedTuple

from common.errors import InputError

EPOCH_MS = 1e11  # numbers above are milliseconds since 1970, in columns that may have either
EPOCH_S = 1e9  # and above this, seconds since then
FRACTION = re.compile(r"(.*\d:\d\d)[.,](\d+)(.*)")


class Form(NamedTuple):
    """A form of trace: its columns, and how many of a column's units are a second."""

    name: str
    time: str
    input: str
    output: str
    per_s: float = 1.0
    unused: tuple[tuple[str, str], ...] = ()
    """Further columns that mean something which is not simulated, and what."""


FORMS = (
    Form("own", "arrival", "input", "output"),
    Form(
        "Azure", "TIMESTAMP", "ContextTokens", "GeneratedTokens",
        unused=(("NumImages", "images are not counted, prompts are their text tokens alone"),),
    ),
    Form("BurstGPT", "Timestamp", "Request tokens", "Response tokens"),
    Form(
        "Mooncake", "timestamp", "input_length", "output_length", 1e3,
        (("hash_ids", "no prefix cache is simulated, so hash_ids are not used"),),
    ),
    Form("vidur", "arrived_at", "num_prefill_tokens", "num_decode_tokens"),
    Form("splitwise-sim", "arrival_timestamp", "prompt_size", "token_size"),
    Form("LLMServingSim", "arrival_time_ns", "input_toks", "output_toks", 1e9),
)  # fmt: skip


def form_of(columns: list[str], where: str) -> Form:
    """Return the form with these columns; InputError names those that are known."""
    for form in FORMS:
        if {form.time, form.input, form.output} <= set(columns):
            return form
    if {"num_prefill_tokens", "num_decode_tokens"} <= set(columns):
        raise InputError(
            f"{where}: has lengths but no column of arrival times (arrived_at); add it"
        )
    if "conversations" in columns:
        raise InputError(
            f"{where}: ShareGPT has texts, but neither arrival times nor tokens; write a CSV with"
            " columns arrival (seconds), input, output (tokens)"
        )
    known = "; ".join(f"{one.time}, {one.input}, {one.output} ({one.name})" for one in FORMS)
    raise InputError(
        f"{where}: columns {', '.join(map(repr, columns[:8]))} are of no known form; expected"
        f" {known}"
    )


def seconds_of(text: object, form: Form) -> float:
    """Return a time in seconds from a fixed moment; ValueError where it is none.

    Numbers are in the form's unit, or milliseconds where they can only be such of the epoch.
    ISO 8601 may have any number of digits in its fraction, and an offset; without one it is UTC.
    """
    try:
        value = float(str(text))
    except ValueError:
        return _moment(str(text).strip())
    if not math.isfinite(value):
        raise ValueError(text)
    return value / (1e3 if form.per_s == 1 and value > EPOCH_MS else form.per_s)


def _moment(text: str) -> float:
    parts = FRACTION.fullmatch(text)
    whole, digits = (parts[1] + parts[3], parts[2]) if parts else (text, "0")
    moment = datetime.fromisoformat(whole)
    known = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return known.timestamp() + float(f"0.{digits}")


def tokens_of(value: object) -> int:
    """Return a whole number of tokens, also written as 500.0; ValueError for anything else."""
    number = float(str(value))
    if not number.is_integer() or number < 0:
        raise ValueError(value)
    return int(number)
