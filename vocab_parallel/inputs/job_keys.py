"""The keys of a torchtitan job config by an allow-list: used, left aside, the same here, refused.

The lists are `data/torchtitan.toml`. Nothing is dropped: a key in none of them is refused.
"""

import tomllib
from difflib import get_close_matches
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import msgspec

from common.errors import InputError


class Lists(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keys by what becomes of them; `same` has the values that change nothing."""

    used: tuple[str, ...]
    aside: dict[str, tuple[str, ...]]
    same: dict[str, tuple[Any, ...]]
    refused: dict[str, str]
    flavors: dict[str, str]


class Job(NamedTuple):
    """Keys in use by their dotted names, and those left aside."""

    used: dict[str, Any]
    aside: tuple[str, ...]

    def number(self, name: str, default: int, *, least: int = 1) -> int:
        """Return a whole number; raises InputError where it is none or below the least."""
        found = self.used.get(name, default)
        if not isinstance(found, int) or isinstance(found, bool) or found < least:
            raise InputError(f"{name} is {found!r}, expected a whole number from {least}")
        return found

    def real(self, name: str, default: float) -> float:
        """Return a number; raises InputError where it is none."""
        found = self.used.get(name, default)
        if not isinstance(found, (int, float)) or isinstance(found, bool):
            raise InputError(f"{name} is {found!r}, expected a number")
        return float(found)

    def word(self, name: str, default: str, expected: tuple[str, ...]) -> str:
        """Return one of some words; raises InputError where it is none of them."""
        found = self.used.get(name, default)
        if found not in expected:
            raise InputError(f"{name} is {found!r}, expected one of {', '.join(expected)}")
        return str(found)


@cache
def lists() -> Lists:
    """Return the allow-list."""
    text = resources.files("vocab_parallel").joinpath("data/torchtitan.toml").read_text()
    return msgspec.convert(tomllib.loads(text), Lists)


def read_job(document: dict[str, Any]) -> Job:
    """Return a config's keys by what becomes of them; raises InputError by the name of one."""
    known = lists()
    aside_names = {f"{table}.{key}" for table, keys in known.aside.items() for key in keys}
    every = {*known.used, *aside_names, *known.same}
    used: dict[str, Any] = {}
    aside: list[str] = []
    for table, keys in document.items():
        if not isinstance(keys, dict):
            raise InputError(f"{table} stands outside of a table; expected [training] and the like")
        for key, value in keys.items():
            name = f"{table}.{key}"
            if name in known.refused:
                raise InputError(f"{name} {known.refused[name]}")
            if name not in every:
                near = get_close_matches(name, every, cutoff=0.85)
                hint = f" (did you mean {near[0]}?)" if near else ""
                raise InputError(f"{name} has no counterpart here{hint}; leave it out")
            if name in known.same and value not in known.same[name]:
                raise InputError(
                    f"{name} = {value!r} has no counterpart here, only {known.same[name][0]!r};"
                    " leave it out"
                )
            if name in known.used:
                used[name] = value
            elif name in aside_names:
                aside.append(name)
    return Job(used, tuple(aside))
