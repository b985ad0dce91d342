"""Rewards that are programs, for experiments and tests without a reward model."""

from __future__ import annotations

from collections.abc import Callable

from common.errors import InputError

Score = Callable[[str], float]


def programmed(name: str) -> Score | None:
    """Return the score of an answer's text, or None where the reward model scores.

    `letters:abc` is the part of the answer's characters that are among these, 0 if it is empty.
    """
    if name == "model":
        return None
    kind, _, letters = name.partition(":")
    if kind != "letters" or not letters:
        raise InputError(f"running.reward is {name!r}, expected 'model' or 'letters:...'")
    wanted = set(letters)
    return lambda text: sum(c in wanted for c in text) / len(text) if text else 0.0
