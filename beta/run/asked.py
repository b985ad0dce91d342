"""What a request of our own form asks, and what any request may ask of a model."""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from beta.run.specs import ModelSpec
from common.errors import InputError

LONGEST_SLO_S = 3600.0


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a request: token ids, or text where the model has a tokenizer."""

    tokens: list[int] | None = None
    text: str | None = None
    slo_s: float | None = None


Tokenize = Callable[[ModelSpec, str], list[int]]
"""Maps a model and a text to token ids; raises InputError where the model has no tokenizer."""


class Understood(NamedTuple):
    """What a request asks, once it is known to be right."""

    tokens: list[int]
    slo_s: float | None


def asked_of(body: bytes, model: ModelSpec, tokenize: Tokenize) -> Understood:
    """Return what a body asks. Raises InputError with one sentence."""
    form = 'expected {"tokens": [ids], "slo_s": seconds}, or "text" in place of tokens'
    try:
        asked = msgspec.json.decode(body, type=Asked)
    except msgspec.DecodeError as error:
        raise InputError(f"{form}: {error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{form}: the body is not UTF-8") from error
    if (asked.tokens is None) == (asked.text is None):
        raise InputError(f"{form}: one of both")
    tokens = tokenize(model, asked.text) if asked.text is not None else asked.tokens or []
    check(tokens, asked.slo_s, model)
    return Understood(tokens, asked.slo_s)


def check(tokens: list[int], slo_s: float | None, model: ModelSpec) -> None:
    """Raise InputError unless a model takes these tokens and a target can be so short or long."""
    limit = model.shape.sequence
    if not 1 <= len(tokens) <= limit:
        raise InputError(f"{len(tokens)} tokens; {model.name} takes 1 to {limit}")
    high = model.shape.vocabulary
    if min(tokens) < 0 or max(tokens) >= high:
        raise InputError(f"token ids of {model.name} are 0 to {high - 1}")
    if slo_s is not None and not 0 < slo_s <= LONGEST_SLO_S:
        raise InputError(
            f"slo_s is {slo_s:g}, expected seconds above 0 and up to {LONGEST_SLO_S:g}"
        )
