"""A user's reward in a process of its own: rows in, scores out, a line of JSON each.

What the reward prints goes to standard error, so that it cannot be taken for scores.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Score = Callable[[list[dict[str, Any]]], Any]


def loaded(spec: str) -> Score:
    """Return the function of `FILE.py:NAME` or `MODULE:NAME`."""
    where, _, name = spec.rpartition(":")
    if where.endswith(".py"):
        path = Path(where).resolve()
        sys.path.insert(0, str(path.parent))
        found = importlib.util.spec_from_file_location(path.stem, path)
        if found is None or found.loader is None or not path.is_file():
            raise FileNotFoundError(f"no file {where}")
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
    else:
        sys.path.insert(0, "")
        module = importlib.import_module(where)
    made = getattr(module, name)
    if not callable(made):
        raise TypeError(f"{name} is no function")
    return made


def scored(score: Score, rows: list[dict[str, Any]]) -> tuple[list[float | None], str]:
    """Return the scores, None where one failed, and why the first did.

    All rows are one call; where that raises, every row is one, so that only bad rows fail.
    """
    try:
        return _numbers(score(rows), len(rows)), ""
    except Exception as error:
        if len(rows) == 1:
            return [None], f"{type(error).__name__}: {error}"
    found: list[float | None] = []
    why = ""
    for row in rows:
        one, told = scored(score, [row])
        found += one
        why = why or told
    return found, why


def _numbers(values: Any, count: int) -> list[float | None]:
    made = [float(value) for value in values]
    if len(made) != count:
        raise ValueError(f"{len(made)} scores for {count} rows")
    if not all(map(math.isfinite, made)):
        raise ValueError("a score is not finite")
    return list(made)


def main() -> None:
    """Serve until standard input ends."""
    out = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)

    def say(value: object) -> None:
        out.write(json.dumps(value) + "\n")
        out.flush()

    try:
        score = loaded(sys.argv[1])
    except BaseException as error:
        say({"error": f"{type(error).__name__}: {error}"})
        return
    say({})
    for line in sys.stdin:
        scores, why = scored(score, json.loads(line))
        say({"scores": scores, "why": why})


if __name__ == "__main__":
    main()
