"""The ways of one service's requests: the simulator's own schedulers, asked by the head.

Max-flow is the class that the simulator runs. Swarm keeps the simulator's rule (each sender prefers
links behind which work was done soonest of late); the head keeps the senders' books, so that a
prompt's whole way is known when it is sent.
"""

import heapq
import random
from itertools import pairwise
from typing import NamedTuple

from helix.inputs.cluster import FIRST, SINK, SOURCE, place_name
from helix.inputs.workload import Scheduler
from helix.plan.kv_expectation import Holding, KvExpectation
from helix.run.messages import Mark, Stop
from helix.simulate.schedulers import FIRST_MEAN_S, NEW_PART, OLD_PART, Cards, MaxFlow, entry_layer
from helix.simulate.system import System

ANY_LENGTH = 1 << 40
FEED = 0.8  # expected KV use up to which offline requests are fed


class Way(NamedTuple):
    """How a request goes: link numbers of its lane, and the stops in order."""

    links: tuple[int, ...]
    stops: list[Stop]

    def passes(self, machine: int) -> bool:
        """Say whether a machine is on the way."""
        return any(stop.machine == machine for stop in self.stops)

    def uses(self, tail: int, head: int) -> bool:
        """Say whether the way goes from one machine to another one directly."""
        return any((a.machine, b.machine) == (tail, head) for a, b in pairwise(self.stops))


class Lane:
    """One service: which machines, which links, how full, who is sent where."""

    def __init__(
        self, name: str, machines: tuple[int, ...], system: System, scheduler: Scheduler,
        marks: tuple[float, float], seed: int,
    ) -> None:  # fmt: skip
        """Begin empty; `marks` are the KV high-water mark and the part of a mean answer."""
        self.name, self.machines, self.system = name, machines, system
        # Pipelines that hold more than their profile says have no flow, and one way each.
        by_flow = scheduler == "maxflow" and bool(system.flow.any())
        self._flow = MaxFlow(system, Cards(system), *marks, FEED) if by_flow else None
        if self._flow is not None:  # one prompt is a batch however long it is
            self._flow.routing.longest_prompt = [ANY_LENGTH] * len(system.first)
        holdings = zip(system.first, system.end, system.kv_entries, strict=True)
        self.kv = self._flow.kv if self._flow else KvExpectation(
            [Holding(int(a), int(b), int(kv)) for a, b, kv in holdings], *marks
        )  # fmt: skip
        self._swarm = scheduler == "swarm"
        self._draw = random.Random(seed)
        self._out = [list[int]() for _ in system.first]
        for link, tail in enumerate(system.tail.tolist()):
            self._out[tail].append(link)
        self._mean_s = [FIRST_MEAN_S] * len(system.tail)
        self._ranked = [[(FIRST_MEAN_S, link) for link in links] for links in self._out]
        self._link_of = {
            (int(tail), int(head)): link
            for link, (tail, head) in enumerate(zip(system.tail, system.head, strict=True))
        }
        self.longest = self._longest()
        self.paused = False

    def find(self, tokens: int) -> Way | None:
        """Return a way for a request of so many tokens so far and reserve its KV; None: no room."""
        if self._flow is not None:
            links = self._flow.routing.route(tokens)
            return None if links is None else Way(links, self._stops(links))
        links = self._hop_by_hop()
        uses = self._uses(links)
        self.kv.take(uses, tokens)
        return Way(links, self._stops(links))

    def adopt(self, stops: list[Stop], tokens: int) -> Way | None:
        """Return the same way as this lane numbers it, reserved here; None if it is gone."""
        place_of = {machine: i + FIRST for i, machine in enumerate(self.machines)}
        if any(stop.machine not in place_of for stop in stops):
            return None
        places = [SOURCE, *(place_of[stop.machine] for stop in stops), SINK]
        links = [self._link_of.get(ends) for ends in pairwise(places)]
        known = tuple(link for link in links if link is not None)
        if len(known) < len(links) or self._stops(known) != stops:
            return None
        self.kv.take(self._uses(known), tokens)
        return Way(known, stops)

    def count_token(self, way: Way) -> None:
        """Count another token on the loads of its links."""
        if self._flow is not None and all(self.system.flow[link] > 0 for link in way.links):
            self._flow.routing.count_token(way.links)

    def learn(self, way: Way, marks: list[Mark]) -> None:
        """Take note of how long each machine took, from the sending to its being done."""
        for link, mark in zip(way.links, marks, strict=False):
            self._mean_s[link] = NEW_PART * (mark.left - mark.sent) + OLD_PART * self._mean_s[link]

    def finish(self, way: Way, tokens: int) -> None:
        """Release what a request was expected to hold."""
        self.kv.give_back(self._uses(way.links), tokens)

    def _uses(self, links: tuple[int, ...]) -> list[tuple[int, int]]:
        system = self.system
        return [
            (int(system.head[link]), int(system.end[system.head[link]]) - entry_layer(system, link))
            for link in links
            if system.head[link] != SINK
        ]

    def _stops(self, links: tuple[int, ...]) -> list[Stop]:
        system, stops = self.system, list[Stop]()
        for link in links:
            head = int(system.head[link])
            if head != SINK:
                machine = self.machines[head - FIRST]
                stops.append(Stop(machine, entry_layer(system, link), int(system.end[head])))
        return stops

    def _hop_by_hop(self) -> tuple[int, ...]:
        place, links = SOURCE, list[int]()
        while place != SINK:
            if self._swarm:
                priority, link = heapq.heappop(self._ranked[place])
                heapq.heappush(self._ranked[place], (priority + self._mean_s[link], link))
            else:
                link = self._draw.choice(self._out[place])
            links.append(link)
            place = int(self.system.head[link])
        return tuple(links)

    def _longest(self) -> int:
        """Return the most tokens of a request that some way has room for, all else empty."""
        most = {SOURCE: ANY_LENGTH}
        order = sorted(
            range(len(self.system.tail)), key=lambda link: entry_layer(self.system, link)
        )
        for link in order:
            tail, head = int(self.system.tail[link]), int(self.system.head[link])
            room = most.get(tail, 0)
            if head != SINK:
                held = int(self.system.end[head] - self.system.first[head])
                room = min(room, int(self.system.kv_entries[head]) // max(held, 1))
            most[head] = max(most.get(head, 0), room)
        return most.get(SINK, 0)

    def title(self, link: int) -> str:
        """Return a link by the machines at its ends."""
        ends = (int(self.system.tail[link]), int(self.system.head[link]))
        return " to ".join(
            place_name(p) if p < FIRST else str(self.machines[p - FIRST]) for p in ends
        )
