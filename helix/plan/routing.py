"""Which way a query goes: interleaved weighted round robin over a flow (paper, section 5).

At every place the links out carry a load, the tokens sent on each divided by its flow; the next
query takes the one whose load would be least. A query keeps its route for all its tokens. The
simulator and the serving host use the same rules.
"""

from collections.abc import Sequence

import msgspec

from helix.inputs.cluster import SINK, SOURCE
from helix.plan.kv_expectation import KvExpectation

LEAST_PART = 0.05  # of a place's outflow: a link with less is not used


class Hop(msgspec.Struct, frozen=True):
    """A link of the placement: its ends, its flow (tokens per second), where work enters."""

    tail: int
    head: int
    flow: float
    entry: int
    """First layer that work arriving on it still needs."""


class FlowRouting:
    """Routes of new queries, and the loads that even them out."""

    def __init__(
        self, hops: Sequence[Hop], longest_prompt: Sequence[int], kv: KvExpectation
    ) -> None:
        """Start without load; `longest_prompt` is the tokens each place takes in a batch."""
        self.hops = hops
        self.longest_prompt = longest_prompt
        self.kv = kv
        self.load = [0.0] * len(hops)
        self._out = _usable(hops)

    def route(self, prompt_tokens: int) -> tuple[int, ...] | None:
        """Return the links of a new query in order and reserve its KV; None if there is no way.

        Without a way all loads are as before.
        """
        place, links = SOURCE, list[int]()
        while place != SINK:
            link = self._next(place, prompt_tokens)
            if link is None:
                for taken in links:
                    self.load[taken] -= prompt_tokens / self.hops[taken].flow
                return None
            self.load[link] += prompt_tokens / self.hops[link].flow
            links.append(link)
            place = self.hops[link].head
        self.kv.take(self.uses(links), prompt_tokens)
        return tuple(links)

    def count_token(self, links: Sequence[int]) -> None:
        """Add one more token of a query to the loads along its route."""
        for link in links:
            self.load[link] += 1 / self.hops[link].flow

    def finish(self, links: Sequence[int], prompt_tokens: int) -> None:
        """Release what a finished query was expected to hold."""
        self.kv.give_back(self.uses(links), prompt_tokens)

    def uses(self, links: Sequence[int]) -> list[tuple[int, int]]:
        """Return (place, layers used) along a route."""
        return [
            (hop.head, self.kv.holdings[hop.head].end - hop.entry)
            for hop in (self.hops[link] for link in links)
            if hop.head != SINK
        ]

    def _next(self, place: int, prompt_tokens: int) -> int | None:
        best, least = None, float("inf")
        for link in self._out.get(place, ()):
            hop = self.hops[link]
            if hop.head != SINK and not self._takes(hop.head, prompt_tokens):
                continue
            load = self.load[link] + prompt_tokens / hop.flow
            if load < least:
                best, least = link, load
        return best

    def _takes(self, place: int, prompt_tokens: int) -> bool:
        return prompt_tokens <= self.longest_prompt[place] and self.kv.accepts(place, prompt_tokens)


def _usable(hops: Sequence[Hop]) -> dict[int, list[int]]:
    """Return, by place, the links out that carry enough of its flow."""
    outflow = dict[int, float]()
    for hop in hops:
        outflow[hop.tail] = outflow.get(hop.tail, 0.0) + hop.flow
    usable = dict[int, list[int]]()
    for link, hop in enumerate(hops):
        if hop.flow > 0 and hop.flow >= outflow[hop.tail] * LEAST_PART:
            usable.setdefault(hop.tail, []).append(link)
    return usable
