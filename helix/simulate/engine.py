"""The simulator, readable: every event of the original, one at a time (fast: `kernel.py`).

Events happen in order of time, then of creation. A node works on one layer at a time: a batch is
taken greedily from the layer's queue, and when it is done the node goes on to the next layer that
has work. Links send one request at a time at a fixed rate and deliver it a latency later.
"""

import heapq
import random
from collections.abc import Callable
from itertools import count

import numpy as np

from common.errors import CaseError, InputError
from helix.inputs.cluster import FIRST, SINK, SOURCE
from helix.inputs.requests import azure_lengths
from helix.inputs.workload import Scheduler
from helix.simulate.metrics import Outcome
from helix.simulate.node import Node
from helix.simulate.schedulers import (
    Cards,
    Choice,
    MaxFlow,
    Query,
    Shuffled,
    Swarm,
    entry_layer,
)
from helix.simulate.simulate import EXPECTED_PART, HIGH_WATER, check_connected
from helix.simulate.switches import Switches
from helix.simulate.system import System
from helix.simulate.trace import KV_ENTRIES, WAITING, Span
from helix.simulate.workload import STAGGER_S, Offline, Workload, warm_up_s


class Engine:
    """One simulation; `run` does it, `spans` then tell what happened when."""

    def __init__(
        self,
        system: System,
        workload: Workload,
        scheduler: Scheduler,
        switches: Switches,
        seed: int = 0,
    ) -> None:
        """Begin with all weights loaded and nothing to do."""
        check_connected(system, scheduler)
        self.system, self.workload, self.switches = system, workload, switches
        self.offline = isinstance(workload, Offline)
        self.begin = system.origin_s + warm_up_s(workload)
        self.end = self.begin + workload.duration_s
        self.now = system.origin_s
        self.heap: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self.created = count()
        self.nodes = [Node(system, place, switches) for place in range(len(system.first))]
        self.leaving = [list[Query]() for _ in system.first]
        self.back: list[Query] = []
        self.cards = Cards(system)
        self.draw = random.Random(seed)
        self.scheduler = self._scheduler(scheduler)
        self.prompt_s, self.decode_s = list[float](), list[float]()
        self.spans: list[Span] = []
        self.events = self.rejected = self.finished = self.active = self.most_active = 0
        self.queries = count()

    def _scheduler(self, name: Scheduler) -> Choice:
        if name == "maxflow":
            feed = self.workload.feed if isinstance(self.workload, Offline) else 0.0
            marks = HIGH_WATER[self.offline], EXPECTED_PART[self.offline]
            return MaxFlow(self.system, self.cards, *marks, feed)
        if name == "swarm":
            return Swarm(self.system, self.cards, lambda place: self.soon(self.transmit, place))
        queued = (lambda place: self.nodes[place].waiting_first) if name != "random" else None
        return Shuffled(self.system, self.cards, self.draw, queued)

    def at(self, time: float, handler: Callable[..., None], *arguments: object) -> None:
        """Let something happen at a time."""
        heapq.heappush(self.heap, (time, next(self.created), handler, arguments))

    def soon(self, handler: Callable[..., None], *arguments: object) -> None:
        """Let something happen now, after all that is already due."""
        self.at(self.now, handler, *arguments)

    def run(self) -> Outcome:
        """Simulate to the end of the window, online until all is served."""
        if isinstance(self.workload, Offline):
            for i in range(self.workload.initial):
                self.launch(self.now + STAGGER_S * i)
            self.advance(self.end)
        else:
            for arrival in self.workload.arrivals:
                self.advance(self.system.origin_s + arrival.time_s)
                self.now = self.system.origin_s + arrival.time_s
                self.soon(self.enter, Query(next(self.queries), arrival.input, arrival.output))
            self.advance(float("inf"))
        return self.outcome()

    def advance(self, until: float) -> None:
        """Let all events up to a time happen."""
        while self.heap and self.heap[0][0] <= until:
            self.now, _, handler, arguments = heapq.heappop(self.heap)
            self.events += 1
            handler(*arguments)

    def launch(self, time: float) -> None:
        """Draw a query and send it at a time."""
        lengths = azure_lengths()
        request = lengths[self.draw.randint(0, len(lengths) - 1)]
        self.at(time, self.enter, Query(next(self.queries), request.input, request.output))

    def enter(self, query: Query) -> None:
        """Take a new query in; offline it is dropped where there is no way for it."""
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        if self.scheduler.admit(query):
            self.send(query)
        elif self.offline:
            self.active -= 1
            self.rejected += 1
        else:
            raise CaseError("a query found no machine with room for it; offer fewer tokens/s")

    def again(self, query: Query) -> None:
        """Send a query's next decode."""
        self.scheduler.again(query)
        self.send(query)

    def send(self, query: Query) -> None:
        """Give an iteration to the coordinator's outbound queue."""
        query.created, query.hop = self.now, 0
        self.leaving[SOURCE].append(query)
        self.soon(self.transmit, SOURCE)

    def transmit(self, place: int) -> None:
        """Start what transfers can be started from a place."""
        for query, rate in self.scheduler.starts(place, self.leaving[place], self.now):
            link = query.link
            self.cards.take(link, rate)
            self.cards.receive(link, rate)
            query.sending, query.rate = self.now, rate
            latency, size = self.system.latency[link], self.system.token_bytes[link]
            sent = self.now + (latency + query.tokens * size / rate) - latency
            self.at(float(sent), self.finish_sending, query)

    def finish_sending(self, query: Query) -> None:
        """Free the link; the request is on its way for a latency more."""
        link = query.link
        self.cards.take(link, -query.rate)
        if self.switches.receiver_free_while_arriving:
            self.cards.receive(link, -query.rate)
        self.soon(self.transmit, int(self.system.tail[link]))
        self.at(self.now + float(self.system.latency[link]), self.arrive, query)

    def arrive(self, query: Query) -> None:
        """Queue up at the receiver."""
        link = query.link
        if not self.switches.receiver_free_while_arriving:
            self.cards.receive(link, -query.rate)
        place = int(self.system.head[link])
        name = f"query {query.number} to {place - FIRST}"
        self.spans.append(Span("link", link, name, query.sending, self.now - query.sending, {}))
        if place == SINK:
            self.back.append(query)
            self.soon(self.gather)
        else:
            self.nodes[place].receive(query, entry_layer(self.system, link))
            self.soon(self.work, place)

    def work(self, place: int) -> None:
        """Start a batch if the node is idle and has work."""
        batch = self.nodes[place].start()
        if batch is None:
            return
        if not batch.seconds >= 0:
            raise InputError("a batch is larger than any in the profile; lower the limits")
        node = self.nodes[place]
        node.note_busy(self.now, batch.seconds, self.begin, self.end)
        sizes = {"prompt tokens": batch.prompt_tokens, "decodes": batch.decodes}
        sizes |= {KV_ENTRIES: node.kv, WAITING: sum(map(len, node.queues))}
        name = f"layer {batch.layer}"
        self.spans.append(Span("node", place, name, self.now, batch.seconds, sizes))
        self.at(self.now + batch.seconds, self.finish_layer, place)

    def finish_layer(self, place: int) -> None:
        """Move the batch on; after the node's last layer it leaves."""
        done = self.nodes[place].finish()
        if done:
            for query in done:
                query.hop += 1
            self.leaving[place] += done
            self.soon(self.transmit, place)
        self.soon(self.work, place)

    def gather(self) -> None:
        """Take note of all iterations that are back, and send what follows."""
        waiting, self.back = self.back, []
        for query in waiting:
            if self.begin <= self.now <= self.end:
                latencies = self.prompt_s if query.done == 0 else self.decode_s
                latencies.append(self.now - query.created)
            query.done += 1
            finished = query.done > query.output
            if finished:
                self.end_query(query)
            else:
                self.soon(self.again, query)
            if self.offline and (finished or query.done == 1) and self.scheduler.feeds(finished):
                self.launch(self.now + STAGGER_S)

    def end_query(self, query: Query) -> None:
        """Free what a finished query held."""
        self.scheduler.finish(query)
        for link in query.route:
            if self.system.head[link] != SINK:
                node = self.nodes[int(self.system.head[link])]
                node.free(query, entry_layer(self.system, link))
        self.active -= 1
        self.finished += 1

    def outcome(self) -> Outcome:
        """Return what the simulation told."""
        nodes = self.nodes[FIRST:]
        window_s = self.end - self.begin
        return Outcome(
            window_s=window_s,
            prompt_s=np.sort(np.array(self.prompt_s)),
            decode_s=np.sort(np.array(self.decode_s)),
            events=self.events,
            rejected=self.rejected,
            finished=self.finished,
            most_active=self.most_active,
            utilisation=tuple(node.busy_s / window_s for node in nodes),
            kv_peak=tuple(node.kv_peak for node in nodes),
            kv_entries=tuple(int(kv) for kv in self.system.kv_entries[FIRST:]),
        )
