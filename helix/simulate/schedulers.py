"""The schedulers, readable: who is sent where, and at what rate. `kernel_*` do the same compiled.

Max-flow decides a query's whole route when it comes in. The others decide hop by hop while the
prompt passes; the decodes go where their prompt went.
"""

import heapq
import random
from collections.abc import Callable, Sequence
from typing import Protocol

from helix.inputs.cluster import SINK, SOURCE
from helix.plan.kv_expectation import Holding, KvExpectation
from helix.plan.routing import FlowRouting, Hop
from helix.simulate.system import System

LEAST_BYTES_PER_S = 10.0  # a link with less to give counts as busy
FIRST_MEAN_S, NEW_PART, OLD_PART = 0.05, 0.8, 0.2  # of swarm's smoothed times


class Query:
    """A query and where its current iteration stands."""

    def __init__(self, number: int, prompt_tokens: int, answer_tokens: int) -> None:
        """Begin before the prompt."""
        self.number = number
        self.input = prompt_tokens
        self.output = answer_tokens
        self.done = 0
        self.created = self.sending = self.rate = 0.0
        self.route: list[int] = []
        self.hop = 0

    @property
    def tokens(self) -> int:
        """Tokens that this iteration passes on."""
        return self.input if self.done == 0 else 1

    @property
    def link(self) -> int:
        """The link of this hop, where it is known."""
        return self.route[self.hop]


class Cards:
    """What transfers take of links and network cards, in bytes per second."""

    def __init__(self, system: System) -> None:
        """Begin with all free."""
        self.system = system
        self.link = [0.0] * len(system.tail)
        self.out = [0.0] * len(system.first)
        self.into = [0.0] * len(system.first)
        self.links_out = [list[int]() for _ in system.first]
        for link, tail in enumerate(system.tail.tolist()):
            self.links_out[tail].append(link)

    def spare(self, link: int) -> float:
        """Return what a new transfer on the link would get."""
        s, tail, head = self.system, self.system.tail[link], self.system.head[link]
        return float(
            min(
                s.nic_out[tail] / len(self.links_out[tail]) - self.link[link],
                s.nic_out[tail] - self.out[tail],
                s.bandwidth[link] - self.link[link],
                s.nic_in[head] - self.into[head],
            )
        )

    def take(self, link: int, rate: float) -> None:
        """Begin a transfer; a negative rate ends it on the link and the sender's card."""
        self.link[link] += rate
        self.out[self.system.tail[link]] += rate

    def receive(self, link: int, rate: float) -> None:
        """The same for the receiver's card."""
        self.into[self.system.head[link]] += rate


class Choice(Protocol):
    """What the engine asks a scheduler."""

    def admit(self, query: Query) -> bool:
        """Say whether a new query is taken."""
        ...

    def again(self, query: Query) -> None:
        """Take note that a query's next decode is sent."""

    def starts(self, place: int, waiting: list[Query], now: float) -> Sequence[tuple[Query, float]]:
        """Return requests that start now with their rates, and take them off those waiting."""
        ...

    def feeds(self, finished: bool) -> bool:
        """Say whether another query is sent after a prompt or a whole query is finished."""
        ...

    def finish(self, query: Query) -> None:
        """Take note that a query is finished."""


class MaxFlow:
    """Helix: routes by the flow, at the rates the flow allots."""

    def __init__(
        self, system: System, cards: Cards, high_water: float, part: float, feed: float
    ) -> None:
        """Begin without load."""
        self.system, self.cards, self.feed = system, cards, feed
        holdings = zip(system.first, system.end, system.kv_entries, strict=True)
        self.kv = KvExpectation(
            [Holding(int(a), int(b), int(kv)) for a, b, kv in holdings], high_water, part
        )
        hops = [
            Hop(int(tail), int(head), float(flow), entry_layer(system, link))
            for link, (tail, head, flow) in enumerate(
                zip(system.tail, system.head, system.flow, strict=True)
            )
        ]
        self.routing = FlowRouting(hops, system.prompt_tokens.tolist(), self.kv)

    def admit(self, query: Query) -> bool:
        """Find a route."""
        route = self.routing.route(query.input)
        query.route = list(route or ())
        return route is not None

    def again(self, query: Query) -> None:
        """Count the token on the route's loads."""
        self.routing.count_token(query.route)

    def starts(self, place: int, waiting: list[Query], now: float) -> list[tuple[Query, float]]:
        """Start the first request for each link that has nothing in flight."""
        started = list[tuple[Query, float]]()
        seen = {link for link in self.cards.links_out[place] if self.cards.link[link] > 0}
        for query in list(waiting):
            if query.link not in seen:
                seen.add(query.link)
                waiting.remove(query)
                started.append((query, float(self.system.share[query.link])))
        return started

    def feeds(self, finished: bool) -> bool:
        """Feed while the KV caches are expected to have room."""
        return self.kv.bottleneck() <= self.feed

    def finish(self, query: Query) -> None:
        """Release what it was expected to hold."""
        self.routing.finish(query.route, query.input)


class HopByHop:
    """What the other schedulers share: every query is taken, as many stay as began."""

    def __init__(self, system: System, cards: Cards) -> None:
        """Begin with all links free."""
        self.system, self.cards = system, cards

    def admit(self, query: Query) -> bool:
        """Take it."""
        return True

    def again(self, query: Query) -> None:
        """Nothing is counted."""

    def feeds(self, finished: bool) -> bool:
        """Replace finished queries."""
        return finished

    def finish(self, query: Query) -> None:
        """Nothing is kept."""


class Swarm(HopByHop):
    """Each sender prefers the links behind which work was done soonest of late."""

    def __init__(self, system: System, cards: Cards, call: Callable[[int], None]) -> None:
        """`call` asks a place to look for what to send."""
        super().__init__(system, cards)
        self.call = call
        self.mean_s = [FIRST_MEAN_S] * len(system.tail)
        self.lines = [list[Query]() for _ in system.tail]
        self.ranked = [[(FIRST_MEAN_S, link) for link in links] for links in cards.links_out]

    def starts(self, place: int, waiting: list[Query], now: float) -> list[tuple[Query, float]]:
        """Let all that is ready wait for a link; start the first for each that is free."""
        self._report(place, waiting, now)
        for query in waiting:
            if query.done == 0:
                priority, link = heapq.heappop(self.ranked[place])
                heapq.heappush(self.ranked[place], (priority + self.mean_s[link], link))
                query.route.append(link)
            self.lines[query.link].append(query)
        waiting.clear()
        open_links = [
            link
            for link in self.cards.links_out[place]
            if self.lines[link] and self.cards.spare(link) > LEAST_BYTES_PER_S
        ]
        return [(self.lines[link].pop(0), self.cards.spare(link)) for link in open_links]

    def _report(self, place: int, waiting: Sequence[Query], now: float) -> None:
        if place == SOURCE:
            return
        links = [query.route[query.hop - 1] for query in waiting]
        for query, link in zip(waiting, links, strict=True):
            taken_s = now - query.sending
            self.mean_s[link] = NEW_PART * taken_s + OLD_PART * self.mean_s[link]
        for sender in dict.fromkeys(int(self.system.tail[link]) for link in links):
            self.call(sender)


class Shuffled(HopByHop):
    """Random, or random among those with the shortest queue."""

    def __init__(
        self,
        system: System,
        cards: Cards,
        draw: random.Random,
        queued: Callable[[int], int] | None,
    ) -> None:
        """`queued` tells how many wait for a place's first layer; without it queues are ignored."""
        super().__init__(system, cards)
        self.draw, self.queued = draw, queued

    def starts(self, place: int, waiting: list[Query], now: float) -> list[tuple[Query, float]]:
        """Give each free link to one request, in the requests' order."""
        links = [
            link
            for link in self.cards.links_out[place]
            if self.cards.spare(link) > LEAST_BYTES_PER_S
        ]
        free, started = set(links), list[tuple[Query, float]]()
        allowed = self._allowed(links)
        for query in list(waiting):
            if query.done == 0:
                self.draw.shuffle(links)
                found = next((link for link in links if link in free & allowed), None)
                query.route[query.hop :] = [] if found is None else [found]
            if len(query.route) > query.hop and query.link in free:
                free.remove(query.link)
                if self.queued:  # the original's random one goes on shuffling used links
                    links.remove(query.link)
                waiting.remove(query)
                started.append((query, self.cards.spare(query.link)))
        return started

    def _allowed(self, links: Sequence[int]) -> set[int]:
        if not self.queued:
            return set(links)
        heads = {link: int(self.system.head[link]) for link in links}
        waits = {link: self.queued(head) for link, head in heads.items() if head != SINK}
        shortest = min(waits.values(), default=0)
        return {link for link in links if waits.get(link, shortest) <= shortest}


def entry_layer(system: System, link: int) -> int:
    """Return the first layer that work arriving on a link still needs."""
    tail = system.tail[link]
    return 0 if tail == SOURCE else int(system.end[tail])
