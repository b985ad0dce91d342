"""The compiled simulator's world: records of places, links, queues, queries and events.

A query has one slot and is in exactly one place at a time: on a link, waiting for a layer, in a
batch, or at the coordinator. So every list of queries is a chain through `following`, and memory
is bounded by slots, links and layers, not by time.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from helix.inputs.cluster import FIRST, SINK
from helix.simulate.system import Floats, Ints, System

NONE = -1
# Kinds of events in the heap, and what their item is.
FINISH, ARRIVE, ANSWER, LAUNCH = range(4)  # place, place, link, slot
# More of schedulers that decide hop by hop; the last four happen at once, after all that is due.
FREE, ARRIVED, TRANSMIT, WORK, GATHER, REQUEST = range(4, 10)  # slot, slot, place, place, -, slot
MAXFLOW, SWARM, RANDOM, SHORTEST_QUEUE = range(4)
# What `World.counts` counts.
PENDING, ORDER, EVENTS, REJECTED, FINISHED, ACTIVE, MOST_ACTIVE, FREE_SLOT, FAULT = range(9)
SOON_FIRST, SOON_END, ARRIVALS, CHECKS, PROMPTS, DECODES = range(9, 15)
COUNTERS = 15
# Why a run stopped before its horizon.
FINE, TOO_MANY_QUERIES, NO_ROUTE, BEYOND_PROFILE, HOPELESS, LOG_FULL, STOPPED = range(7)
FIRST_MEAN_S = 0.05  # swarm: of every link before its first measurement
Records = NDArray[np.void]


def _record(whole: str, real: str, truth: str = "") -> np.dtype[np.void]:
    fields = [(name, np.int64) for name in whole.split()]
    fields += [(name, np.float64) for name in real.split()]
    return np.dtype(fields + [(name, np.bool_) for name in truth.split()], align=True)


CHAIN = _record("head tail", "")  # first and last slot, NONE and anything where it is empty
PLACE = _record(
    "first end kind kv_entries prompt_requests prompt_tokens decode_requests context_tokens"
    " queue"  # number of its first layer's queue, the others follow
    " layer"  # where it stands among its layers
    " buffered"  # tokens that arrived and are not yet copied to the accelerator
    " kv kv_most expected_free"
    " called",  # swarm: number of the last scan that asked it to look for more
    "nic_in nic_out taken_in taken_out"
    " first_s batch_s"  # time of the batch's first layer here, and of each other one
    " began wakes busy",
    "whole",  # all work enters at its first layer, so that a batch stays together
)
LINK = _record(
    "tail head entry",  # first layer that work on it still needs
    "bandwidth latency token_bytes flow share free_at load taken"
    " mean_s priority",  # swarm: smoothed time to the end of the work behind the link
)
SLOT = _record(
    "following input output order"
    " done"  # iterations finished: 0 while the prompt is under way
    " hop hops",
    "created"  # when this iteration left the coordinator
    " sending sent arrives"  # its last transfer: begin, off the sender, at the receiver
    " rate",  # bytes per second that it takes of the cards
)
EVENT = _record(
    "order what",
    "time created",  # when it happens, and when the original would have created it
)


class World(NamedTuple):
    """All there is, as records; `following` chains begin in `lines`, `queues`, `batches`."""

    places: Records
    links: Records
    slots: Records
    lines: Records
    """By link: what is on it."""
    waits: Records
    """By link: what waits for it (swarm)."""
    queues: Records
    """By layer of every node."""
    batches: Records
    """By place: what it works on."""
    leaving: Records
    """By place: what is to be sent (schedulers that decide hop by hop)."""
    heap: Records
    soon: Ints
    """A ring of events that happen at once, kind and item in one number."""
    route: Ints
    """By slot and hop: link."""
    prompt_s: Floats
    decode_s: Floats
    least_decode_s: Floats
    in_first: Ints
    """By place: where its inbound links begin in `in_links`."""
    in_links: Ints
    out_first: Ints
    out_links: Ints
    counts: Ints
    layer_free: Floats
    """Scratch, by layer."""
    layer_capacity: Floats
    free_links: Ints
    """Scratch."""
    layers: int
    activation_bytes: float


def make_world(system: System, slots: int) -> World:
    """Return the world before the first event, with room for so many queries at once."""
    places, links = _places(system), _links(system)
    layers_held = int((system.end - system.first).sum())
    in_first, in_links = _around(system.head, len(places))
    out_first, out_links = _around(system.tail, len(places))
    free = np.zeros(slots, SLOT)
    free["following"] = [*range(1, slots), NONE]
    return World(
        places=places,
        links=links,
        slots=free,
        lines=_chains(len(links)),
        waits=_chains(len(links)),
        queues=_chains(layers_held + 1),
        batches=_chains(len(places)),
        leaving=_chains(len(places)),
        heap=np.zeros(2 * slots + 4 * (len(places) + len(links)), EVENT),
        soon=np.zeros(4 * slots + 4 * len(links), np.int64),
        route=np.full((slots, len(places)), NONE),
        prompt_s=system.prompt_s,
        decode_s=system.decode_s,
        least_decode_s=system.least_decode_s,
        in_first=in_first,
        in_links=in_links,
        out_first=out_first,
        out_links=out_links,
        counts=np.zeros(COUNTERS, np.int64),
        layer_free=np.zeros(system.layers),
        layer_capacity=np.zeros(system.layers),
        free_links=np.zeros(len(links), np.int64),
        layers=system.layers,
        activation_bytes=float(system.activation_bytes),
    )


def _places(system: System) -> Records:
    places = np.zeros(len(system.first), PLACE)
    for name in PLACE.names or ():
        if name in System.__struct_fields__:
            places[name] = getattr(system, name)
    held = system.end - system.first
    places["queue"] = np.concatenate(([0], np.cumsum(held)[:-1]))
    places["expected_free"] = system.kv_entries
    places["wakes"] = np.inf
    places["whole"] = True
    inner = system.head != SINK
    mid = _entry(system)[inner] != system.first[system.head[inner]]
    places["whole"][system.head[inner][mid]] = False
    return places


def _links(system: System) -> Records:
    links = np.zeros(len(system.tail), LINK)
    for name in LINK.names or ():
        if name in System.__struct_fields__:
            links[name] = getattr(system, name)
    links["entry"] = _entry(system)
    links["mean_s"] = links["priority"] = FIRST_MEAN_S
    return links


def _entry(system: System) -> Ints:
    return np.where(system.tail < FIRST, 0, system.end[system.tail])


def _chains(count: int) -> Records:
    return np.full(count, NONE, CHAIN)


def _around(ends: Ints, places: int) -> tuple[Ints, Ints]:
    """Return each place's links in their order: where they begin, and the links."""
    links = np.argsort(ends, kind="stable")
    return np.searchsorted(ends[links], np.arange(places + 1)).astype(np.int64), links
