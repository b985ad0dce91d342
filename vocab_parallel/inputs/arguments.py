"""Megatron's arguments by an allow-list: used, left aside, the same here anyway, or refused.

The lists are `data/megatron.toml`. Nothing is dropped: a name in none of them is refused.
"""

import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache
from importlib import resources
from typing import NamedTuple

import msgspec

from common.errors import InputError
from vocab_parallel.inputs.shell.values import UNKNOWN, told


class Known(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Names of arguments by what follows them: one word, any number of words, or nothing."""

    value: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    flag: tuple[str, ...] = ()


class Lists(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The allow-list; `same` has the words that change nothing, `refused` the reasons."""

    used: Known
    aside: dict[str, Known]
    same: dict[str, tuple[str, ...]]
    refused: dict[str, str]


class Given(NamedTuple):
    """Arguments in use by name (a flag's value is empty), names left aside, variables not set."""

    used: dict[str, str]
    aside: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def has(self, name: str) -> bool:
        """Say whether an argument is there."""
        return name in self.used

    def text(self, name: str, default: str = "") -> str:
        """Return an argument's word; refuses what only a program would say, and empty words."""
        found = self.used.get(name, default)
        if UNKNOWN in found:
            raise InputError(f"{name} is what {told(found)} prints; write the value")
        if name in self.used and not found:
            names = ", ".join(f"${name}" for name in self.missing)
            also = f"; not set in the script: {names}" if names else ""
            raise InputError(f"{name} has no value{also}")
        return found

    def number(self, name: str, default: int | None = None, *, least: int = 1) -> int:
        """Return a whole number; raises InputError where it is none, or not there."""
        if not self.has(name) and default is None:
            raise InputError(f"{name} is not given, and Megatron has no default; give it")
        text = self.text(name, "" if default is None else str(default))
        if not text.isdecimal() or (self.has(name) and int(text) < least):
            raise InputError(f"{name} is {text!r}, expected a whole number from {least}")
        return int(text)

    def real(self, name: str, default: float) -> float:
        """Return a number; raises InputError where it is none."""
        text = self.text(name, str(default))
        try:
            return float(text)
        except ValueError as error:
            raise InputError(f"{name} is {text!r}, expected a number") from error


@cache
def lists() -> Lists:
    """Return the allow-list."""
    text = resources.files("vocab_parallel").joinpath("data/megatron.toml").read_text()
    return msgspec.convert(tomllib.loads(text), Lists)


def read_arguments(words: Sequence[str], missing: tuple[str, ...] = ()) -> Given:
    """Return the arguments of a command line; raises InputError by the name of one not taken."""
    known = lists()
    kinds = _kinds(known)
    used: dict[str, str] = {}
    aside: dict[str, None] = {}
    place = 0
    while place < len(words):
        name, equals, value = words[place].partition("=")
        place += 1
        if not name.startswith("--"):
            raise InputError(f"{name!r} follows no argument that takes it")
        following = []
        while place < len(words) and not words[place].startswith("--"):
            following.append(words[place])
            place += 1
        _check_known(name, kinds, known)
        _check_count(name, kinds[name], [value] if equals else following)
        if equals and following:
            raise InputError(f"{following[0]!r} follows {words[place - 2]}, which has its value")
        said = value if equals else " ".join(following)
        if name in known.same:
            _check_same(name, said, known.same[name])
        elif name in known.used.value or name in known.used.flag:
            used[name] = said
        else:
            aside[name] = None
    return Given(used, tuple(aside), missing)


def _kinds(known: Lists) -> dict[str, str]:
    """Return what follows each argument: value, values or flag."""
    found = dict.fromkeys(known.same, "value")
    for group in (known.used, *known.aside.values()):
        for kind in ("value", "values", "flag"):
            found |= dict.fromkeys(getattr(group, kind), kind)
    return found


def _check_known(name: str, kinds: dict[str, str], known: Lists) -> None:
    if name in known.refused:
        raise InputError(f"{name} {known.refused[name]}")
    if name not in kinds:
        near = get_close_matches(name, kinds, cutoff=0.85)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise InputError(f"{name} has no counterpart here{hint}; leave it out")


def _check_count(name: str, kind: str, words: list[str]) -> None:
    most = {"flag": 0, "value": 1}.get(kind, len(words))
    if len(words) > most:
        raise InputError(f"{words[most]!r} follows {name}, which takes {most or 'no'} word")


def _check_same(name: str, said: str, allowed: tuple[str, ...]) -> None:
    if said not in allowed:
        raise InputError(f"{name} {said} has no counterpart here, only {allowed[0]}; leave it out")
