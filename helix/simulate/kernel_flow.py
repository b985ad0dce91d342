"""Routes by the flow's weights, and how full the KV caches are expected to be.

The readable form is `plan/routing.py` and `plan/kv_expectation.py`.
"""

# numpy knows no fields of records and takes elements for arrays; numba checks types as it compiles.
# pyright: basic, reportArgumentType=false, reportReturnType=false, reportAttributeAccessIssue=false

import numpy as np

from helix.inputs.cluster import SINK, SOURCE
from helix.plan.bare import bare
from helix.simulate.kernel_state import NONE, World

OUTPUT_TOKENS = 240  # what a query is expected to answer
LEAST_PART = 0.05  # of a place's outflow: below, a link is not used


@bare
def choose_route(w: World, slot: int, high_water: float, ratio: float) -> bool:
    """Fill in a new query's route; where there is none, undo and say so."""
    expected = expected_entries(w, slot, ratio)
    place, hops = SOURCE, 0
    while place != SINK:
        link = _next_link(w, place, w.slots[slot].input, expected, high_water)
        if link == NONE:
            for hop in range(hops):
                w.links[w.route[slot, hop]].load -= (
                    w.slots[slot].input / w.links[w.route[slot, hop]].flow
                )
            return False
        w.links[link].load += w.slots[slot].input / w.links[link].flow
        w.route[slot, hops] = link
        hops += 1
        place = w.links[link].head
    w.slots[slot].hops = hops
    expect(w, slot, -expected)
    return True


@bare
def expected_entries(w: World, slot: int, ratio: float) -> int:
    """Return the KV entries for each layer that the query is expected to end with."""
    return int(w.slots[slot].input + OUTPUT_TOKENS * ratio)


@bare
def expect(w: World, slot: int, entries: int) -> None:
    """Give back (or, below zero, take) KV entries of every layer on the slot's route."""
    for hop in range(w.slots[slot].hops - 1):
        link = w.route[slot, hop]
        place = w.links[link].head
        w.places[place].expected_free += entries * (w.places[place].end - w.links[link].entry)


@bare
def _next_link(w: World, place: int, length: int, expected: int, high_water: float) -> int:
    total = 0.0
    for i in range(w.out_first[place], w.out_first[place + 1]):
        total += w.links[w.out_links[i]].flow
    best, least = NONE, np.inf
    for i in range(w.out_first[place], w.out_first[place + 1]):
        link = w.out_links[i]
        if w.links[link].flow < total * LEAST_PART or w.links[link].flow <= 0:
            continue
        if not _accepts(w, w.links[link].head, length, expected, high_water):
            continue
        load = w.links[link].load + length / w.links[link].flow
        if load < least:
            best, least = link, load
    return best


@bare
def _accepts(w: World, place: int, length: int, expected: int, high_water: float) -> bool:
    if place == SINK:
        return True
    if length > w.places[place].prompt_tokens:
        return False
    left = w.places[place].expected_free - expected * (w.places[place].end - w.places[place].first)
    return left >= (1 - high_water) * w.places[place].kv_entries


@bare
def count_decode(w: World, slot: int) -> None:
    """Add a decode iteration to the loads along its route."""
    for hop in range(w.slots[slot].hops):
        link = w.route[slot, hop]
        w.links[link].load += 1 / w.links[link].flow


@bare
def bottleneck(w: World) -> float:
    """Return the expected KV use of the fullest layer, as a part of all nodes that hold it."""
    free, capacity = w.layer_free, w.layer_capacity
    free[:] = 0.0
    capacity[:] = 0.0
    for place in range(len(w.places)):
        held = w.places[place].end - w.places[place].first
        for layer in range(w.places[place].first, w.places[place].end):
            free[layer] += w.places[place].expected_free / held
            capacity[layer] += w.places[place].kv_entries / held
    worst = 0.0
    for layer in range(w.layers):
        if capacity[layer] > 0:
            worst = max(worst, 1 - free[layer] / capacity[layer])
    return worst
