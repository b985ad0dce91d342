"""Conditions of `[ ]`, `test` and `[[ ]]` on expanded words."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

from common.errors import InputError
from vocab_parallel.inputs.shell.values import UNKNOWN, told

_NUMBERS = {"-eq": "==", "-ne": "!=", "-lt": "<", "-le": "<=", "-gt": ">", "-ge": ">="}
_FILES = {"-f": Path.is_file, "-d": Path.is_dir, "-e": Path.exists, "-s": Path.exists}


def holds(words: list[str]) -> bool:
    """Return whether a condition holds; raises InputError where it is none that can be read."""
    if any(UNKNOWN in word for word in words):
        raise InputError(f"[ {told(' '.join(words))} ] asks what a program prints")
    return _either([*words])


def _either(words: list[str]) -> bool:
    for mark in ("||", "-o"):
        if mark in words:
            place = words.index(mark)
            return _either(words[:place]) or _either(words[place + 1 :])
    for mark in ("&&", "-a"):
        if mark in words:
            place = words.index(mark)
            return _either(words[:place]) and _either(words[place + 1 :])
    if words[:1] == ["!"]:
        return not _either(words[1:])
    if words[:1] == ["("] and words[-1:] == [")"]:
        return _either(words[1:-1])
    return _one(words)


def _one(words: list[str]) -> bool:
    match words:
        case []:
            return False
        case [value] | ["-n", value]:
            return bool(value)
        case ["-z", value]:
            return not value
        case [test, name] if test in _FILES:
            return _FILES[test](Path(name))
        case [left, "=" | "==", right]:
            return fnmatchcase(left, right)
        case [left, "!=", right]:
            return not fnmatchcase(left, right)
        case [left, "=~", right]:
            return re.search(right, left) is not None
        case [left, test, right] if test in _NUMBERS:
            return _compared(left, test, right)
        case [left, "<" | ">" as test, right]:
            return left < right if test == "<" else left > right
        case _:
            raise InputError(f"[ {' '.join(words)} ] is not read here; write out what it decides")


def _compared(left: str, test: str, right: str) -> bool:
    try:
        a, b = int(left or "0"), int(right or "0")
    except ValueError as error:
        raise InputError(f"[ {left} {test} {right} ] compares what is no whole number") from error
    return {"==": a == b, "!=": a != b, "<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[
        _NUMBERS[test]
    ]
