"""The least cost of an iteration, or the least time within a budget: which nodes to pay for.

cost = time x the price of the nodes that are used. A choice is a number of nodes of every run of
equal ones. No plan that uses just a choice's nodes is below the choice's price x what no plan on
any of them is below in time: first by `Floor`, then by what the strict search proves. The choice
whose bound is least is searched, for longer each time it comes up again, so that the first one's
bound holds for all plans at any moment.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from functools import cache
from heapq import heappop, heappush
from itertools import product
from math import inf, prod
from typing import NamedTuple

import msgspec

from common.devices import find
from common.errors import InputError
from metis.inputs.cluster import MB_PER_GB, Cluster, Node, NodeGroup
from metis.plan.anytime import CLOSE, Best, Search
from metis.plan.cells import Found
from metis.plan.floor import Floor
from metis.plan.lines import Run, runs
from metis.plan.problem import Problem

MOST_CHOICES = 4096
"""Choices that are looked at; of larger pools any power of two of a run's nodes, and all."""

SLICE_S = 1.0
"""Seconds for a choice when it first comes up; twice as much each further time."""

HOUR_MS = 3.6e6


class Wish(NamedTuple):
    """What is to be least, and the most that the nodes may cost."""

    cost: bool
    """Money an iteration, not time."""
    usd_per_hour: float = inf


class _Choice(NamedTuple):
    bound: float
    number: int
    counts: tuple[int, ...]
    usd_per_hour: float
    slice_s: float


def price(nodes: Sequence[Node]) -> float:
    """Return what nodes cost together, US dollars an hour.

    Raises:
        InputError: the price of a device is neither given nor in the data sheets.
    """
    own = (node.usd_per_hour for node in nodes)
    each = (list_price(n.device) if p is None else p for n, p in zip(nodes, own, strict=True))
    return sum(usd * node.devices for usd, node in zip(each, nodes, strict=True))


@cache
def list_price(device: str) -> float:
    """Return the data sheet's price of a device, US dollars an hour."""
    try:
        usd = find(device).usd_per_hour
    except InputError:
        usd = None
    if usd is None:
        raise InputError(
            f"cluster.nodes ({device}): usd_per_hour is missing and common/devices.toml has no"
            " price of it; write usd_per_hour, the price of a device"
        )
    return usd


def counts_of(run: Run, *, every: bool) -> list[int]:
    """Return how many nodes of a run may be taken: all numbers, or 2^k and all."""
    count = len(run.machines)
    if every:
        return list(range(count + 1))
    return sorted({0, count} | {1 << k for k in range(count.bit_length())})


class Bargain:
    """A search over choices of nodes, with the same face as `Search`; values are ms or dollars."""

    def __init__(self, problem: Problem, wish: Wish, *, gap: float = 0.0) -> None:
        self.problem, self.wish, self.margin = problem, wish, max(gap, CLOSE)
        self.machines, self.runs = problem.cluster.machines(), runs(problem.cluster)
        price(self.machines)
        self.every = prod(len(run.machines) + 1 for run in self.runs) <= MOST_CHOICES
        self.started = time.monotonic()
        self.search: Search | None = None
        self.stopped = False
        self.found: Found | None = None
        self.value = inf
        self.lower, self.parts, self.finished = 0.0, 0, False

    def stop(self) -> None:
        """Let `run` end soon, from another thread."""
        self.stopped = True
        if self.search is not None:
            self.search.stop()

    def best(self) -> Best:
        """Return what is known by now; the bound is in what is to be least."""
        seconds = time.monotonic() - self.started
        lower = min(self.lower, self.value)
        return Best(self.found, lower, self.parts, self.finished, seconds)

    def worth(self, found: Found) -> float:
        """Return a plan's value: ms, or dollars an iteration."""
        if not self.wish.cost:
            return found.cost_ms
        return found.cost_ms * price([self.machines[m] for m in found.machines]) / HOUR_MS

    def run(self) -> None:
        """Search until the gap is reached or `stop` is called."""
        heap = list[_Choice]()
        for choice in self._choices():
            heappush(heap, choice)
        closed = inf
        while heap and heap[0].bound < self.value * (1 - self.margin) and not self.stopped:
            self.lower = min(heap[0].bound, closed)
            choice = heappop(heap)
            bound, finished = self._look(choice)
            if finished:
                closed = min(closed, max(bound, choice.bound))
            elif bound < self.value:
                again = choice._replace(bound=max(bound, choice.bound), slice_s=2 * choice.slice_s)
                heappush(heap, again)
        self.lower = min(heap[0].bound if heap else inf, closed)
        self.finished = self.lower >= self.value * (1 - self.margin) or not heap

    def _choices(self) -> Iterator[_Choice]:
        """Yield the choices within the budget that a plan may fit on, with a first bound."""
        floor = Floor(self.problem)
        each = [counts_of(run, every=self.every) for run in self.runs]
        if prod(map(len, each)) > MOST_CHOICES:
            raise InputError(
                f"search.objective: there are more than {MOST_CHOICES} choices of nodes from"
                f" {len(self.runs)} kinds; describe equal nodes as one group, or leave kinds out"
            )
        affordable = list[tuple[tuple[int, ...], float]]()
        for counts in product(*each):
            usd = price(self._nodes(counts))
            if any(counts) and usd <= self.wish.usd_per_hour * (1 + CLOSE):
                affordable.append((counts, usd))
        if not self.wish.cost:
            affordable = _largest(affordable)
        for number, (counts, usd) in enumerate(affordable):
            devices = dict[str, int]()
            for run, count in zip(self.runs, counts, strict=True):
                name = run.node.device
                devices[name] = devices.get(name, 0) + count * run.node.devices
            least = min(floor.cost(b, devices) for b in self.problem.batches())
            if least < inf:
                bound = least * usd / HOUR_MS if self.wish.cost else least
                yield _Choice(bound, number, counts, usd, SLICE_S)

    def _numbers(self, counts: tuple[int, ...]) -> list[int]:
        """Return the numbers of a choice's machines."""
        taken = zip(self.runs, counts, strict=True)
        return [m for run, count in taken for m in run.machines[:count]]

    def _nodes(self, counts: tuple[int, ...]) -> list[Node]:
        return [self.machines[m] for m in self._numbers(counts)]

    def _look(self, choice: _Choice) -> tuple[float, bool]:
        """Search on a choice's nodes for its time; return its bound and whether it is done."""
        to_value = choice.usd_per_hour / HOUR_MS if self.wish.cost else 1.0
        numbers = self._numbers(choice.counts)
        cluster = Cluster(nodes=tuple(_group(self.machines[m]) for m in numbers))
        types = tuple(cluster.device_types())
        part = msgspec.structs.replace(self.problem, cluster=cluster, node_types=types)
        self.search = Search(part, gap=self.margin, below=self.value / to_value)
        timer = threading.Timer(choice.slice_s, self.search.stop)
        timer.start()
        if not self.stopped:
            self.search.run()
        timer.cancel()
        best = self.search.best()
        self.parts += 1
        if best.found is not None:
            found = best.found._replace(machines=tuple(numbers[m] for m in best.found.machines))
            if self.worth(found) < self.value:
                self.found, self.value = found, self.worth(found)
        return best.lower_bound_ms * to_value, best.finished


def _largest(choices: list[tuple[tuple[int, ...], float]]) -> list[tuple[tuple[int, ...], float]]:
    """Return the choices that no other one contains: more nodes are never slower."""
    kept = list[tuple[tuple[int, ...], float]]()
    for counts, usd in sorted(choices, key=lambda choice: -sum(choice[0])):
        if not any(all(a <= b for a, b in zip(counts, other, strict=True)) for other, _ in kept):
            kept.append((counts, usd))
    return kept


def _group(node: Node) -> NodeGroup:
    return NodeGroup(
        device=node.device,
        devices=node.devices,
        memory_gb=node.memory_mb / MB_PER_GB,
        intra_bandwidth=node.intra_bandwidth,
        inter_bandwidth=node.inter_bandwidth,
        usd_per_hour=node.usd_per_hour,
    )
