"""Measures beside yardsticks: how many times as fast, whatever else the machine does.

Both sides run in turn (A B A B ...), the least of the rounds counts, and what counts are CPU
seconds of the process and its children: waiting for a core that others use is no part of them.
"""

import gc
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest

from common.files import write
from common.provenance import collect

Answer = TypeVar("Answer")
ROOT = Path(__file__).parents[2]
Counts = dict[str, int]
"""What was done, by its name in the plural, such as steps."""
LEAST_S = 0.05
"""A shorter act is repeated within a round until it takes so long."""
ENOUGH_S = 0.5
"""CPU seconds of all rounds but the first after which no further one is begun."""
ROUNDS = (2, 7)
"""Fewest and most."""
HEAD = ("measure", "ours", "yardstick", "ratio", "at least", "work")


class Yardstick(NamedTuple):
    """What a measure stands beside; `work` is how much it does, by the measure's count."""

    name: str
    act: Callable[[], object]
    work: float = 1.0


class Table:
    """The measures of one session, as the rows of a Markdown table."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, ...]] = []
        self.facts: list[tuple[str, ...]] = []

    def compare(
        self,
        measure: str,
        ours: Callable[[], Answer],
        beside: Yardstick,
        *,
        at_least: float,
        work: Callable[[Answer], Counts],
        exactly: Counts,
        per: str | None = None,
    ) -> Answer:
        """Time both sides in turn; note the ratio of their speeds and assert it.

        The ratio is the yardstick's seconds over ours: above 1 we are faster. `work` counts what
        was done for an answer, and that must be `exactly` so much each time. Where the sides do
        different amounts, the seconds are those per piece of what `per` counts.
        """
        last = list[Answer]()

        def act() -> None:
            last[:] = [ours()]
            assert work(last[0]) == exactly, f"{measure}: other work than that of {exactly}"

        mine, theirs = _in_turn(act, beside.act)
        ratio = theirs / beside.work / (mine / (exactly[per] if per else 1))
        seconds = (_time(mine), f"{beside.name}: {_time(theirs)}")
        done = ", ".join(f"{count:,} {name}" for name, count in exactly.items())
        self.rows.append((measure, *seconds, f"{ratio:.3g}", f"{at_least:g}", done))
        assert ratio >= at_least, f"{measure}: {ratio:.3g} x {beside.name}, not {at_least:g} x"
        return last[0]

    def fact(self, measure: str, value: float, most: float, unit: str) -> None:
        """Note and assert a figure that no load changes."""
        self.facts.append((measure, f"{value:.0f} {unit}", f"{most:g} {unit}"))
        assert value <= most, f"{measure}: {value:.0f} {unit}, not {most:g} {unit} at most"

    def write(self, path: Path) -> None:
        """Write the table of what was measured."""
        write(path, "\n".join([*self._about(), *_rows(HEAD, self.rows), *self._facts(), ""]))

    def _about(self) -> list[str]:
        facts: dict[str, Any] = collect()
        machine = facts["hardware"]
        return [
            "# Speed beside yardsticks",
            "",
            f"`make bench` on {machine['cpu']}, {machine['cores']} cores, Python"
            f" {facts['python']}, revision {facts['revision']}. CPU seconds, the least of rounds in"
            " which both sides ran in turn. The ratio is the yardstick's time over ours for the"
            " same amount of work: above 1 we are faster.",
            "",
        ]

    def _facts(self) -> list[str]:
        return ["", *_rows(("fact", "ours", "at most"), self.facts)] if self.facts else []


def _in_turn(*sides: Callable[[], object]) -> list[float]:
    """Return each side's least seconds over rounds in which all take their turn.

    The first round warms up: it compiles, and may be the least only where there is little to warm.
    """
    gc.collect()
    samples, spent, rounds = [[_seconds(side, 1)] for side in sides], 0.0, 1
    while rounds < ROUNDS[0] or (spent < ENOUGH_S and rounds < ROUNDS[1]):
        for side, found in zip(sides, samples, strict=True):
            times = max(1, ceil(LEAST_S / max(min(found), 1e-6)))
            found.append(_seconds(side, times))
            spent += found[-1] * times
        rounds += 1
    return [min(found) for found in samples]


def _seconds(act: Callable[[], object], times: int) -> float:
    begin = _cpu()
    for _ in range(times):
        act()
    return (_cpu() - begin) / times


def _cpu() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def _time(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} µs"


def _rows(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = [head, ("---",) * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def bare_events(count: int) -> Yardstick:
    """Return simpy passing so many time-outs of one process: what an event costs at least."""
    simpy: Any = pytest.importorskip("simpy")

    def tick(environment: Any) -> Iterator[Any]:
        for _ in range(count):
            yield environment.timeout(1.0)

    def act() -> None:
        environment = simpy.Environment()
        environment.process(tick(environment))
        environment.run()

    return Yardstick(f"simpy, {count:,} bare events", act, count)


def whole_process(*arguments: str) -> None:
    """Run Python with the repository's packages; raise where it fails."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    subprocess.run(command, env=environment, check=True, capture_output=True)


def start_up(*modules: str) -> Yardstick:
    """Return a Python that imports modules of others and ends."""
    names = ", ".join(modules)
    return Yardstick(f"Python importing {names}", lambda: whole_process("-c", f"import {names}"))
