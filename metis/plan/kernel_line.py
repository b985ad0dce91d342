"""Compiled dynamic program along a line: the best stages for all layers, nodes left idle or not.

State (level, class, r, l): a stage begins at rank r of the line with layer l; `class` is what the
stage before must know of it to send to it, `level` how many stages come after it, counted up to the
last level. Shapes: J levels, Q classes, N ranks, L layers.
"""

# numpy's stubs take elements of arrays for arrays; numba checks the types when it compiles.
# pyright: basic, reportArgumentType=false, reportReturnType=false

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.kernels import compiled
from metis.plan.cost import BYTES_PER_MS
from metis.plan.kernel_balance import tightest
from metis.plan.tables import Floats, Ints, Tables

Flags = NDArray[np.bool_]

TOTAL, PACE = 0, 1
"""What is minimised: the sum of times, or the slowest stage or link."""


class Arcs(NamedTuple):
    """The groups along a line: group a begins at the rank r with start[r] <= a < start[r + 1]."""

    start: Ints
    slot: Ints
    end: Ints
    """Rank after the group."""
    entry_start: Ints
    """After a group that ends at r, the next begins at entry[entry_start[r]: entry_start[r + 1]]"""
    entry: Ints
    inside: Flags
    """Whether r lies inside a node."""
    opens: Flags
    """Whether a plan may begin at r."""
    node_inter: Floats
    node_intra: Floats
    """Bandwidths of the node that holds rank r, GB/s."""


class Slots(NamedTuple):
    """What the stages before and after must know of a group."""

    inter: Floats
    intra: Floats
    single: Flags
    """Whether it stands on one node."""
    kind: Ints
    """Its class."""
    kind_inter: Floats
    kind_single: Flags


class Limits(NamedTuple):
    """Every stage stays below these, ms."""

    pace: float
    update: float
    reduce: float


class Held(NamedTuple):
    """How many layers and micro-batches memory holds; options with equal memory are one class."""

    kind: Ints
    """Class of every option."""
    flights: NDArray[np.int16]
    """Most micro-batches in flight over (class, first layer, end); 0 where not even one fits."""
    reach: NDArray[np.int16]
    """Largest end of layers over (class, micro-batches in flight, first layer)."""
    quicker: Ints
    """The option that differs from an option only in doing less again; -1: none."""


class Way(NamedTuple):
    """The best way on from every state, shape (J, Q, N + 1, L + 1)."""

    value: Floats
    stages: Ints
    choice: NDArray[np.int32]
    """Arc, degree, end of its layers, and level, class and rank of the next state (-1: none)."""


@compiled
def _bandwidth(arcs: Arcs, slots: Slots, s: int, r: int, e: int, q: int, exact: bool) -> float:
    """Return GB/s between a group that ends at r and the next one, of class q, at e.

    Not exact: the fastest that it can be.
    """
    inter = min(slots.inter[s], slots.kind_inter[q] if exact else arcs.node_inter[e])
    if not arcs.inside[r] or not slots.single[s]:
        return inter
    if exact:
        return min(slots.intra[s], arcs.node_intra[e]) if slots.kind_single[q] else inter
    return max(inter, min(slots.intra[s], arcs.node_intra[e]))


@compiled
def held(t: Tables, kind: Ints, example: Ints, quicker: Ints, most: int) -> Held:
    """Return what memory holds, with up to `most` micro-batches in flight.

    `kind` (options) holds each option's class, `example` (classes) an option of each.
    """
    layers = t.ranges.shape[1] - 1
    flights = np.zeros((len(example), layers + 1, layers + 1), dtype=np.int16)
    reach = np.zeros((len(example), most + 1, layers), dtype=np.int16)
    for c in range(len(example)):
        for first in range(layers):
            flight = most
            for end in range(first + 1, layers + 1):
                while flight > 0:
                    demand, capacity = tightest(t, example[c], first, end, flight)
                    if demand <= capacity:
                        break
                    flight -= 1
                flights[c, first, end] = flight
                for f in range(flight + 1):
                    reach[c, f, first] = end
    return Held(kind, flights, reach, quicker)


@compiled
def _finish(t: Tables, o: int, first: int, end: int) -> tuple[float, float]:
    """Return optimizer step and all-reduce, ms."""
    update = t.update[o] * ((end - first) / (t.ranges.shape[1] - 1))
    return update, t.allreduce[o] * t.ranges[t.parameters[o], first, end]


@compiled
def _within(t: Tables, limits: Limits) -> NDArray[np.int16]:
    """Return the largest end of layers that keeps the limits, over (option, first layer)."""
    layers = t.ranges.shape[1] - 1
    found = np.zeros((len(t.time), layers), dtype=np.int16)
    for o in range(len(t.time)):
        end = 0
        for first in range(layers):
            end = max(end, first)
            while end < layers:
                update, reduce = _finish(t, o, first, end + 1)
                if update >= limits.update or reduce >= limits.reduce:
                    break
                if t.ranges[t.time[o], first, end + 1] >= limits.pace:
                    break
                end += 1
            found[o, first] = end
    return found


@compiled
def _keep(way: Way, at: tuple[int, int, int, int], value: float, count: int, choice: Ints) -> None:
    way.value[at] = value
    way.stages[at] = count
    j, q, r, first = at
    for i in range(6):
        way.choice[j, q, r, first, i] = choice[i]


@compiled
def _last(
    t: Tables, slots: Slots, a: tuple[int, int, int, int, int], first: int, batches: int,
    measure: int, way: Way, choice: Ints,
) -> None:  # fmt: skip
    """Let a group end the plan: it holds the layers from `first` on."""
    arc, s, r, degree, o = a
    layers = t.ranges.shape[1] - 1
    value = t.ranges[t.time[o], first, layers]
    if measure == TOTAL:
        value += batches * t.sync[o]
        if first == 0:
            value += batches * t.batch_generator[o]
    at = (0, slots.kind[s], r, first)
    if value < way.value[at]:
        choice[0], choice[1], choice[2] = arc, degree, layers
        choice[3] = choice[4] = choice[5] = -1
        _keep(way, at, value, 1, choice)


@compiled
def _cheapest_end(
    t: Tables, o: int, first: int, ends: tuple[int, int], send: float, below: Floats, measure: int
) -> tuple[float, int]:
    """Return the least value of a stage with what follows it, and its end of layers."""
    best, at, time = np.inf, -1, t.ranges[t.time[o], first]
    if measure == TOTAL:
        for end in range(ends[0], ends[1] + 1):
            if time[end] >= best:
                break
            value = time[end] + below[end]
            if value < best:
                best, at = value, end
        return best + send, at
    for end in range(ends[0], ends[1] + 1):
        own = max(time[end], send)
        if own >= best:
            break
        value = max(own, below[end])
        if value < best:
            best, at = value, end
    return best, at


@compiled
def _cheapest_that_fits(
    t: Tables, memory: Held, o: int, first: int, ends: tuple[int, int], batches: int,
    below: Floats, stages: Ints,
) -> tuple[float, int]:  # fmt: skip
    """Return the same for the sum of times, holding what the stages that follow really make."""
    best, at = np.inf, -1
    for end in range(ends[0], ends[1] + 1):
        value = t.ranges[t.time[o], first, end] + below[end]
        flight = min(batches, stages[end] + 1)
        if value < best and memory.flights[memory.kind[o], first, end] >= flight:
            best, at = value, end
    return best, at


@compiled
def _before(
    t: Tables, arcs: Arcs, slots: Slots, memory: Held, a: tuple[int, int, int, int, int],
    first: int, top: int, batches: int, pace: float, how: tuple[int, bool, bool], way: Way,
    least: Ints, choice: Ints,
) -> None:  # fmt: skip
    """Let a group that begins with a layer stand before every state that can follow it."""
    arc, s, r, degree, o = a
    measure, exact, whole = how
    levels, after = way.value.shape[0], arcs.end[arc]
    fixed = batches * t.batch_generator[o] if first == 0 and measure == TOTAL else 0.0
    for i in range(arcs.entry_start[after], arcs.entry_start[after + 1]):
        e = arcs.entry[i]
        for q in range(way.value.shape[1]):
            link = _bandwidth(arcs, slots, s, after, e, q, exact)
            send = t.send_hidden[o] / (link * BYTES_PER_MS)
            if send >= pace:
                continue
            for j in range(levels):
                flight = min(batches, 2 if whole else j + 2)
                high = min(top, memory.reach[memory.kind[o], flight, first])
                low = max(first + 1, least[j, q, e])
                if not whole and memory.quicker[o] >= 0:
                    # Where the quicker option fits it is never worse: all else is equal.
                    low = max(low, memory.reach[memory.kind[memory.quicker[o]], flight, first] + 1)
                if high <= first:
                    break
                if low > high:
                    continue
                below = way.value[j, q, e]
                if whole:
                    value, end = _cheapest_that_fits(
                        t, memory, o, first, (low, high), batches, below, way.stages[j, q, e]
                    )
                    value += send
                else:
                    value, end = _cheapest_end(t, o, first, (low, high), send, below, measure)
                at = (min(j + 1, levels - 1), slots.kind[s], r, first)
                if value + fixed < way.value[at]:
                    choice[0], choice[1], choice[2] = arc, degree, end
                    choice[3], choice[4], choice[5] = j, q, e
                    _keep(way, at, value + fixed, way.stages[j, q, e, end] + 1, choice)


@compiled
def _try_option(
    t: Tables, arcs: Arcs, slots: Slots, memory: Held, a: tuple[int, int, int, int, int],
    within: NDArray[np.int16], batches: int, pace: float, how: tuple[int, bool, bool], way: Way,
    least: Ints, choice: Ints,
) -> None:  # fmt: skip
    arc, _, r, _, o = a
    layers, after = t.ranges.shape[1] - 1, arcs.end[arc]
    closes, goes_on = not arcs.inside[after], arcs.entry_start[after + 1] > arcs.entry_start[after]
    for first in range(0 if arcs.opens[r] else 1, layers):
        top = min(within[o, first], memory.reach[memory.kind[o], 1, first])
        if closes and top == layers:
            _last(t, slots, a, first, batches, how[0], way, choice)
        top = min(top, layers - 1)
        if goes_on and top > first:
            _before(
                t, arcs, slots, memory, a, first, top, batches, pace, how, way, least, choice
            )  # fmt: skip


@compiled
def best_ways(
    t: Tables, arcs: Arcs, slots: Slots, memory: Held, batches: int, levels: int, limits: Limits,
    measure: int, exact: bool, whole: bool, stopped: Ints,
) -> Way:  # fmt: skip
    """Return the best way on from every state; what is worth nothing once `stopped[0]` is set.

    With L levels a stage is asked to hold the micro-batches in flight that at most L later stages
    make: exact where that is all of them, never too many. `whole` asks for those of the way that
    is best below (one level, sum of times): what it finds fits, but better ones may be missed.
    """
    ranks, layers = len(arcs.opens), t.ranges.shape[1] - 1
    shape = (levels, len(slots.kind_inter), ranks + 1, layers + 1)
    way = Way(
        np.full(shape, np.inf),
        np.zeros(shape, dtype=np.int64),
        np.full((*shape, 6), -1, dtype=np.int32),
    )
    least = np.full(shape[:3], layers + 1, dtype=np.int64)
    choice, within = np.zeros(6, dtype=np.int64), _within(t, limits)
    how = (measure, exact, whole)
    for r in range(ranks - 1, -1, -1):
        if stopped[0] != 0:
            break
        for arc in range(arcs.start[r], arcs.start[r + 1]):
            s = arcs.slot[arc]
            for degree in range(t.option_of.shape[1]):
                o = t.option_of[s, degree, 0]
                if o >= 0:
                    _try_option(
                        t, arcs, slots, memory, (arc, s, r, degree, o), within, batches,
                        limits.pace, how, way, least, choice,
                    )  # fmt: skip
        for j in range(levels):
            for q in range(shape[1]):
                for first in range(layers - 1, -1, -1):
                    if way.value[j, q, r, first] < np.inf:
                        least[j, q, r] = first
    return way


@compiled
def follow(
    t: Tables, arcs: Arcs, slots: Slots, way: Way, exact: bool
) -> tuple[float, Floats, Ints]:
    """Return the best way's value, its largest pace, update and all-reduce (ms), and its stages.

    Stages are rows of rank, arc, degree, first layer, end of layers; none where there is no way.
    """
    best, j, q, r = np.inf, -1, -1, -1
    for start in np.flatnonzero(arcs.opens):
        for level in range(way.value.shape[0]):
            for kind in range(way.value.shape[1]):
                if way.value[level, kind, start, 0] < best:
                    best, j, q, r = way.value[level, kind, start, 0], level, kind, start
    most, layers = np.zeros(3), t.ranges.shape[1] - 1
    rows, count, first = np.zeros((layers, 5), dtype=np.int64), 0, 0
    while r >= 0:
        choice = way.choice[j, q, r, first]
        arc, degree, end = choice[0], choice[1], choice[2]
        s = arcs.slot[arc]
        o = t.option_of[s, degree, 0]
        rows[count] = np.array([r, arc, degree, first, end])
        count += 1
        pace = t.ranges[t.time[o], first, end]
        if choice[5] >= 0:
            link = _bandwidth(arcs, slots, s, arcs.end[arc], choice[5], choice[4], exact)
            pace = max(pace, t.send_hidden[o] / (link * BYTES_PER_MS))
        update, reduce = _finish(t, o, first, end)
        most[0], most[1], most[2] = max(most[0], pace), max(most[1], update), max(most[2], reduce)
        j, q, r, first = choice[3], choice[4], choice[5], end
    return best, most, rows[:count]
