"""The schedulers that decide hop by hop: swarm, random and shortest queue.

A prompt's next machine is chosen when a link is free (random, shortest queue) or when the request
is ready (swarm); decodes go where their prompt went. Transfers compete for network cards, so here
each of the original's events is one, but for the layers that a batch passes unchanged.
"""

# numpy knows no fields of records and takes elements for arrays; numba checks types as it compiles.
# pyright: basic, reportArgumentType=false, reportReturnType=false, reportAttributeAccessIssue=false

from helix.inputs.cluster import SINK, SOURCE
from helix.plan.bare import bare
from helix.simulate.kernel_heap import LATER, next_number, push, soon
from helix.simulate.kernel_link import append, tokens
from helix.simulate.kernel_random import shuffle
from helix.simulate.kernel_state import EVENTS, FREE, NONE, SHORTEST_QUEUE, SWARM, TRANSMIT, World
from helix.simulate.system import Ints

LEAST_BYTES_PER_S = 10.0  # a link with less to give counts as busy
NEW_PART, OLD_PART = 0.8, 0.2  # of swarm's smoothed time


@bare
def transmit(w: World, words: Ints, scheduler: int, place: int, now: float) -> None:
    """Start what transfers can be started from a place."""
    if scheduler == SWARM:
        _line_up(w, place, now)
        for i in range(w.out_first[place], w.out_first[place + 1]):
            link = w.out_links[i]
            if w.waits[link].head != NONE and _spare(w, link) > LEAST_BYTES_PER_S:
                slot = w.waits[link].head
                w.waits[link].head = w.slots[slot].following
                _begin(w, link, slot, now)
    elif w.leaving[place].head != NONE:
        _assign(w, words, scheduler, place, now)


@bare
def _spare(w: World, link: int) -> float:
    """Return the bytes per second that a new transfer on the link would get."""
    tail, head, taken = w.links[link].tail, w.links[link].head, w.links[link].taken
    share = w.places[tail].nic_out / (w.out_first[tail + 1] - w.out_first[tail])
    return min(
        share - taken,
        w.places[tail].nic_out - w.places[tail].taken_out,
        w.links[link].bandwidth - taken,
        w.places[head].nic_in - w.places[head].taken_in,
    )


@bare
def _begin(w: World, link: int, slot: int, now: float) -> None:
    rate = _spare(w, link)
    w.links[link].taken += rate
    w.places[w.links[link].tail].taken_out += rate
    w.places[w.links[link].head].taken_in += rate
    latency = w.links[link].latency
    sent = now + (latency + tokens(w, slot) * w.links[link].token_bytes / rate) - latency
    w.slots[slot].sending, w.slots[slot].rate = now, rate
    push(w, sent, now, next_number(w) + LATER, FREE, slot)


@bare
def release(w: World, slot: int, sender: bool, receiver: bool) -> None:
    """Give back the transfer's part of the sender's or the receiver's card."""
    link = w.route[slot, w.slots[slot].hop]
    rate = w.slots[slot].rate
    if sender:
        w.links[link].taken -= rate
        w.places[w.links[link].tail].taken_out -= rate
    if receiver:
        w.places[w.links[link].head].taken_in -= rate


@bare
def _line_up(w: World, place: int, now: float) -> None:
    """Swarm: let every request that is ready wait for a link, and report how it fared so far."""
    slot, scan = w.leaving[place].head, next_number(w)
    w.leaving[place].head = NONE
    while slot != NONE:
        after = w.slots[slot].following
        hop = w.slots[slot].hop
        if place != SOURCE:
            link = w.route[slot, hop - 1]
            taken_s = now - w.slots[slot].sending
            w.links[link].mean_s = NEW_PART * taken_s + OLD_PART * w.links[link].mean_s
            _call(w, w.links[link].tail, scan)
        if w.slots[slot].done == 0:
            w.route[slot, hop] = _least_priority(w, place)
        append(w, w.waits, w.route[slot, hop], slot)
        slot = after


@bare
def _call(w: World, place: int, scan: int) -> None:
    """Let a sender look for more, once for all reports of one scan."""
    if w.places[place].called != scan:
        w.places[place].called = scan
        w.counts[EVENTS] += 1
        soon(w, TRANSMIT, place)


@bare
def _least_priority(w: World, place: int) -> int:
    best = w.out_links[w.out_first[place]]
    for i in range(w.out_first[place] + 1, w.out_first[place + 1]):
        link = w.out_links[i]
        if w.links[link].priority < w.links[best].priority:
            best = link
    w.links[best].priority += w.links[best].mean_s
    return best


@bare
def _assign(w: World, words: Ints, scheduler: int, place: int, now: float) -> None:
    """Random, shortest queue: give each free link to one request, in the requests' order."""
    free, count = w.free_links, 0
    for i in range(w.out_first[place], w.out_first[place + 1]):
        if _spare(w, w.out_links[i]) > LEAST_BYTES_PER_S:
            free[count] = w.out_links[i]
            count += 1
    shortest = _shortest_queue(w, free, count)
    before, slot = NONE, w.leaving[place].head
    while slot != NONE:
        after = w.slots[slot].following
        hop = w.slots[slot].hop
        if w.slots[slot].done == 0:
            shuffle(words, free, count)
            most = shortest if scheduler == SHORTEST_QUEUE else 1 << 60
            w.route[slot, hop] = _first_open(w, free, count, most)
        link = w.route[slot, hop]
        if link == NONE or _spare(w, link) <= LEAST_BYTES_PER_S:
            before = slot
        else:
            if scheduler == SHORTEST_QUEUE:  # the original's random one shuffles used links too
                count = _without(free, count, link)
            _unlink(w, place, before, slot)
            _begin(w, link, slot, now)
        slot = after


@bare
def _first_open(w: World, links: Ints, count: int, most: int) -> int:
    """Return the first link with bandwidth to spare and no longer queue behind it, or NONE."""
    for i in range(count):
        if _spare(w, links[i]) > LEAST_BYTES_PER_S and _queued(w, links[i]) <= most:
            return links[i]
    return NONE


@bare
def _without(links: Ints, count: int, link: int) -> int:
    """Take a link out, if it is there; return how many are left."""
    kept = 0
    for i in range(count):
        links[kept] = links[i]
        kept += links[i] != link
    return kept


@bare
def _shortest_queue(w: World, free: Ints, count: int) -> int:
    shortest = 1 << 60
    for i in range(count):
        if w.links[free[i]].head != SINK:
            shortest = min(shortest, _queued(w, free[i]))
    return shortest


@bare
def _queued(w: World, link: int) -> int:
    """Return how many requests wait for the first layer of the node behind a link."""
    place = w.links[link].head
    if place == SINK:
        return 0
    count, slot = 0, w.queues[w.places[place].queue].head
    while slot != NONE:
        count += 1
        slot = w.slots[slot].following
    return count


@bare
def _unlink(w: World, place: int, before: int, slot: int) -> None:
    after = w.slots[slot].following
    if before == NONE:
        w.leaving[place].head = after
    else:
        w.slots[before].following = after
    if after == NONE:
        w.leaving[place].tail = before
