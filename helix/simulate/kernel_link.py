"""Transfers. A link is a line: one transfer at a time at a fixed rate, then its latency.

With max-flow every link has its own share of the cards, so a transfer's times are known as soon
as the request is ready, and no event is needed at its end: a busy receiver looks at its lines
when it is free again.
"""

# numpy knows no fields of records and takes elements for arrays; numba checks types as it compiles.
# pyright: basic, reportArgumentType=false, reportReturnType=false, reportAttributeAccessIssue=false

import numpy as np

from helix.inputs.cluster import SINK
from helix.plan.bare import bare
from helix.simulate.kernel_heap import next_number, push
from helix.simulate.kernel_state import ANSWER, ARRIVE, EVENTS, NONE, Records, World

HOP_EVENTS = 4  # sent, the sender looks for more, arrived, the receiver looks for work


@bare
def tokens(w: World, slot: int) -> int:
    """Return how many tokens this iteration passes on."""
    return w.slots[slot].input if w.slots[slot].done == 0 else 1


@bare
def append(w: World, chains: Records, chain: int, slot: int) -> None:
    """Add a slot at the end of a chain."""
    w.slots[slot].following = NONE
    if chains[chain].head == NONE:
        chains[chain].head = slot
    else:
        w.slots[chains[chain].tail].following = slot
    chains[chain].tail = slot


@bare
def take(w: World, chains: Records, chain: int) -> int:
    """Take the first slot out of a chain."""
    slot = chains[chain].head
    chains[chain].head = w.slots[slot].following
    return slot


@bare
def transfer(w: World, link: int, slot: int, begin: float, rate: float) -> None:
    """Put a request on a link that is free at `begin`; its times follow."""
    latency = w.links[link].latency
    sent = begin + (latency + tokens(w, slot) * w.links[link].token_bytes / rate) - latency
    arrives = sent + latency
    w.slots[slot].sending, w.slots[slot].sent, w.slots[slot].arrives = begin, sent, arrives
    w.slots[slot].order = next_number(w)
    append(w, w.lines, link, slot)
    w.counts[EVENTS] += HOP_EVENTS
    place = w.links[link].head
    if place == SINK:
        push(w, arrives, sent, w.slots[slot].order, ANSWER, link)
    elif w.batches[place].head == NONE and arrives < w.places[place].wakes:
        w.places[place].wakes = arrives
        push(w, arrives, sent, w.slots[slot].order, ARRIVE, place)


@bare
def send_along_route(w: World, slot: int, now: float) -> None:
    """Send a request on the next link of its route, behind all that wait there."""
    link = w.route[slot, w.slots[slot].hop]
    begin = max(now, w.links[link].free_at)
    transfer(w, link, slot, begin, w.links[link].share)
    w.links[link].free_at = w.slots[slot].sent


@bare
def _first_line(w: World, place: int) -> int:
    """Return the link whose head of line arrives first, or NONE."""
    best = NONE
    for i in range(w.in_first[place], w.in_first[place + 1]):
        link = w.in_links[i]
        slot = w.lines[link].head
        if slot == NONE:
            continue
        if best == NONE:
            best = link
            continue
        other = w.lines[best].head
        if w.slots[slot].arrives != w.slots[other].arrives:
            earlier = w.slots[slot].arrives < w.slots[other].arrives
        elif w.slots[slot].sent != w.slots[other].sent:
            earlier = w.slots[slot].sent < w.slots[other].sent
        elif w.slots[slot].sending != w.slots[other].sending:
            earlier = w.slots[slot].sending < w.slots[other].sending
        else:
            earlier = w.slots[slot].order < w.slots[other].order
        if earlier:
            best = link
    return best


@bare
def receive(w: World, place: int, now: float) -> None:
    """Move all that has arrived into the queues of the layers it needs first."""
    while True:
        link = _first_line(w, place)
        if link == NONE or w.slots[w.lines[link].head].arrives > now:
            break
        slot = take(w, w.lines, link)
        queue = w.places[place].queue + w.links[link].entry - w.places[place].first
        append(w, w.queues, queue, slot)
        w.places[place].buffered += tokens(w, slot)


@bare
def wake_for_next(w: World, place: int) -> None:
    """Let an idle node wait for the next arrival."""
    w.places[place].wakes = np.inf
    link = _first_line(w, place)
    if link != NONE:
        slot = w.lines[link].head
        w.places[place].wakes = w.slots[slot].arrives
        push(w, w.slots[slot].arrives, w.slots[slot].sent, w.slots[slot].order, ARRIVE, place)
