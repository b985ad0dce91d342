"""Rewards that are programs: shipped ones, and the user's own in a process with a time limit."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from common.errors import InputError
from puzzle.inputs.ppo import RewardTerm, Running
from puzzle.run.rows import Row

MODEL = "model"
_HANGS = 3
"""Rows of one call that may each use up the time limit before the others are given up too."""
_START_S = 120.0
"""Longest that a user's module may take to be imported."""


class Scored(NamedTuple):
    """Scores of rows; those that failed have the score of a failure."""

    scores: list[float]
    failed: list[bool]
    why: str
    """Of the first failure; empty if there is none."""


class Program(Protocol):
    """A reward that reads rows: all columns of the data set, and `answer`."""

    def score(self, rows: Sequence[Row]) -> Scored:
        """Return the scores of some rows."""
        ...

    def close(self) -> None:
        """End what was started."""
        ...


class Letters:
    """The part of the answer's characters that are among some, 0 if it is empty."""

    def __init__(self, letters: str) -> None:
        self.wanted = set(letters)

    def score(self, rows: Sequence[Row]) -> Scored:
        """Return each answer's part."""
        texts = [str(row["answer"]) for row in rows]
        found = [sum(c in self.wanted for c in t) / len(t) if t else 0.0 for t in texts]
        return Scored(found, [False] * len(found), "")

    def close(self) -> None:
        """Do nothing."""


class Own:
    """The user's function in a worker process, which is started anew where it does not answer."""

    def __init__(self, spec: str, limit_s: float, on_failure: float) -> None:
        self.spec, self.limit_s, self.on_failure = spec, limit_s, on_failure
        self.worker: subprocess.Popen[bytes] | None = None
        self.rest = b""
        self.start()

    def start(self) -> None:
        """Start the worker; raises InputError where the function cannot be had."""
        self.close()
        command = [sys.executable, "-m", "puzzle.run.reward_worker", self.spec]
        self.worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.rest = b""
        told = self.heard(_START_S)
        if told is None or "error" in told:
            self.close()
            why = told["error"] if told else f"no answer in {_START_S:g} s"
            raise InputError(f"running.reward {self.spec!r} cannot be loaded: {why}")

    def score(self, rows: Sequence[Row]) -> Scored:
        """Return the scores; rows that raise or do not end in time have that of a failure."""
        if not rows:
            return Scored([], [], "")
        found = self.ask(rows)
        if found is not None:
            return self.filled(*found)
        why = f"no answer in {self.limit_s:g} s, or its process has ended"
        scores: list[float | None] = []
        hangs = 0
        for row in rows:
            one = self.ask([row]) if len(rows) > 1 and hangs < _HANGS else None
            hangs += one is None
            scores += [None] if one is None else one[0]
        return self.filled(scores, why)

    def filled(self, scores: Sequence[float | None], why: str) -> Scored:
        """Put the score of a failure where there is none."""
        failed = [score is None for score in scores]
        return Scored([self.on_failure if s is None else s for s in scores], failed, why)

    def ask(self, rows: Sequence[Row]) -> tuple[list[float | None], str] | None:
        """Return what the worker says of some rows, None where it does not; it is then new."""
        assert self.worker is not None
        assert self.worker.stdin is not None
        try:
            self.worker.stdin.write(json.dumps(list(rows), default=str).encode() + b"\n")
            self.worker.stdin.flush()
            told = self.heard(self.limit_s)
        except OSError:  # it has ended
            told = None
        if told is None:
            self.start()
            return None
        return told["scores"], told["why"]

    def heard(self, limit_s: float) -> dict[str, Any] | None:
        """Return the worker's next line, None if none comes in time."""
        assert self.worker is not None
        assert self.worker.stdout is not None
        stream, end = self.worker.stdout.fileno(), time.monotonic() + limit_s
        while b"\n" not in self.rest:
            ready, _, _ = select.select([stream], [], [], max(0.0, end - time.monotonic()))
            more = os.read(stream, 2**16) if ready else b""
            if not more:
                return None
            self.rest += more
        line, _, self.rest = self.rest.partition(b"\n")
        return json.loads(line)

    def close(self) -> None:
        """End the worker."""
        if self.worker is None:
            return
        self.worker.kill()
        self.worker.wait()
        for stream in (self.worker.stdin, self.worker.stdout):
            if stream:
                stream.close()
        self.worker = None


class Rewards:
    """All rewards of a run, weighted; the reward model's share is told apart."""

    def __init__(self, running: Running) -> None:
        self.programs: list[tuple[float, Program]] = []
        self.model_weight = 0.0
        self.failed, self.why = 0, ""
        for term in terms(running):
            if term.score == MODEL:
                self.model_weight += term.weight
            else:
                self.programs.append((term.weight, _program(term.score, running)))

    @property
    def needs_model(self) -> bool:
        """Say whether the reward model scores too."""
        return self.model_weight != 0.0

    def score(self, rows: Sequence[Row]) -> list[float]:
        """Return the weighted sum of all programs' scores; counts rows that failed in any."""
        total, failed = [0.0] * len(rows), [False] * len(rows)
        for weight, program in self.programs:
            found = program.score(rows)
            total = [t + weight * s for t, s in zip(total, found.scores, strict=True)]
            failed = [a or b for a, b in zip(failed, found.failed, strict=True)]
            self.why = found.why or self.why
        self.failed = sum(failed)
        return total

    def close(self) -> None:
        """End all workers."""
        for _, program in self.programs:
            program.close()


def terms(running: Running) -> tuple[RewardTerm, ...]:
    """Return the rewards that are added up."""
    if isinstance(running.reward, str):
        return (RewardTerm(score=running.reward),)
    return running.reward


def models_score(running: Running) -> bool:
    """Say whether a reward model is among the rewards."""
    return any(term.score == MODEL and term.weight for term in terms(running))


def _program(name: str, running: Running) -> Program:
    kind, colon, rest = name.partition(":")
    if kind == "letters" and rest:
        return Letters(rest)
    if not colon or not rest or kind == "letters":
        raise InputError(
            f"running.reward is {name!r}, expected 'model', 'letters:...', or a function of your"
            " own as 'FILE.py:NAME' or 'MODULE:NAME'"
        )
    return Own(name, running.reward_timeout_s, running.reward_on_failure)


def check_rewards(running: Running, rows: Sequence[Row]) -> None:
    """Raise InputError where a reward cannot be had, or would read what is not the answer."""
    made = Rewards(running)
    made.close()
    if made.programs and "answer" in rows[0]:
        raise InputError(
            "running.prompts has a column 'answer', which is what a reward reads the generated"
            " answer from; give the column another name"
        )
