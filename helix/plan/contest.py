"""Answers of different methods, judged alike: by the simulator under the user's own workload."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import msgspec
import numpy as np

from helix.inputs.search import Objective
from helix.plan.clock import Clock
from helix.plan.plans import Compared, Service
from helix.plan.question import Intervals, Question, Served, Simulator, workers
from helix.plan.search_chains import estimate_of
from helix.plan.search_problem import SearchProblem, search_problem

NEAR = 0.005  # online: of rates that differ by less, latency decides
SLOW_S = 10.0  # seconds of a request by which latencies are told apart

Services = tuple[Service, ...]


class Entry(NamedTuple):
    """An answer: whose, by which split of its flow."""

    method: str
    split: str
    services: Services
    said: str = ""
    """What there is to be said of it."""


class Judged(NamedTuple):
    """An answer and what came of it."""

    entry: Entry
    served: Served
    score: float
    """What is largest for the best answer."""


def score_of(served: Served, *, online: bool) -> float:
    """Return what answers are ranked by: the rate; online latency, too, where rates are near.

    What overfills a KV cache ranks behind all that does not; what was cut short is NaN.
    """
    score = served.rate
    if online:
        score *= 1 + NEAR / (1 + served.mean_s / SLOW_S)
    return score if not served.full else score * 1e-9


class Contest:
    """Answers as they come in; the best of them stands at every moment."""

    def __init__(
        self, question: Question, objective: Objective, simulator: Simulator, clock: Clock,
        estimate: Callable[[Service], float | None],
    ) -> None:  # fmt: skip
        """Begin without any."""
        self.question, self.clock, self.simulator = question, clock, simulator
        self.judged, self.refused = list[Judged](), list[Compared]()
        self.slowest_s = 0.0  # of the simulations so far
        self.simulations = 0
        self._objective, self._estimate = objective, estimate
        self._known = dict[bytes, Served]()

    def enter(self, entries: Sequence[Entry]) -> list[Judged]:
        """Judge answers side by side and return what came of each that was judged in time."""
        found = list[Judged]()
        with ThreadPoolExecutor(workers(self.question.search)) as threads:
            for entry, served in zip(entries, threads.map(self._serve, entries), strict=True):
                if not np.isnan(served.rate):
                    score = score_of(served, online=self.simulator.online and self._simulated)
                    found.append(Judged(entry, served, score))
                    self.judged.append(found[-1])
        return found

    @property
    def _simulated(self) -> bool:
        return self._objective == "simulated"

    def _serve(self, entry: Entry) -> Served:
        if self._objective == "flow":
            return Served(sum(one.flow for one in entry.services), 0.0, False)
        if self._objective == "latency-flow":
            return Served(sum(self._estimate(one) or 0.0 for one in entry.services), 0.0, False)
        known = msgspec.json.encode(entry.services)
        if known in self._known:
            return self._known[known]
        begin = self.clock.seconds()
        served = self.simulator.own(entry.services, 0, self.clock.flag)
        self.slowest_s = max(self.slowest_s, self.clock.seconds() - begin)
        self.simulations += 1
        if not np.isnan(served.rate):
            self._known[known] = served
        return served

    def draw(self, one: Judged, draw: int) -> float:
        """Return the score of an answer for another draw of requests; NaN: cut short."""
        self.simulations += 1
        served = self.simulator.own(one.entry.services, draw, self.clock.flag)
        return score_of(served, online=self.simulator.online)

    def refuse(self, method: str, why: str) -> None:
        """Note why a method has no answer."""
        self.refused.append(Compared(method, "", 0.0, said=why))

    def ranked(self) -> list[Judged]:
        """Return the answers, the best first; of equals those that came first."""
        return sorted(self.judged, key=lambda one: -one.score)

    def table(self) -> tuple[Compared, ...]:
        """Return what there was to choose from, the best first, and who had no answer."""
        simulated, online = self._simulated, self.simulator.online
        return (
            *(
                Compared(
                    entry.method, entry.split, sum(one.flow for one in entry.services),
                    served.rate if simulated else None,
                    served.mean_s if simulated and online else None,
                    "a KV cache overflows" if served.full else entry.said,
                )
                for entry, served, _ in self.ranked()
            ),
            *self.refused,
        )  # fmt: skip


def runs_of(entry: Entry, machines: int, layers: int) -> Intervals | None:
    """Return an answer as one service's runs of layers by machine; None: more than a profile's.

    Several services on different machines are one placement, in which work may pass from one to
    another besides.
    """
    runs = [(0, 0)] * machines
    for one in entry.services:
        if one.kv_entries or one.kinds or one.layers != layers:
            return None
        for machine, run in zip(one.machines, one.intervals, strict=True):
            runs[machine] = run
    return tuple(runs)


def estimated(question: Question, problem: SearchProblem, one: Service) -> float | None:
    """Return the decode throughput of a service in closed form, tokens/s; None beyond a profile."""
    if one.flow <= 0:
        return None
    if len(one.machines) < len(question.cluster.nodes):
        part = question.cluster.part(one.machines)
        problem = search_problem(part, question.model, question.profiles, question.speed)
    return estimate_of(problem, one.intervals, partial=True)
