"""The compiled simulator: the same service as `engine.py`, without the events that change nothing.

Work that waits for a busy node costs nothing, a batch that stays together is one event, and
transfers on max-flow's links are computed when their turn is known. Ties keep the original's
order: an event's key is when the original would have created it.
"""

# numpy knows no fields of records and takes elements for arrays; numba checks types as it compiles.
# pyright: basic, reportArgumentType=false, reportReturnType=false, reportAttributeAccessIssue=false

from typing import NamedTuple

import numpy as np

from helix.plan.compiled import compiled
from helix.simulate.kernel_flow import bottleneck, choose_route, count_decode, expect
from helix.simulate.kernel_heap import LATER, next_number, pop, push
from helix.simulate.kernel_link import send_along_route, take
from helix.simulate.kernel_node import (
    finish_layers,
    look_for_work,
    march,
    pass_to_next_layer,
)
from helix.simulate.kernel_random import draw_below
from helix.simulate.kernel_state import (
    ACTIVE,
    ANSWER,
    ARRIVE,
    EVENTS,
    FAULT,
    FINE,
    FINISH,
    FINISHED,
    FREE_SLOT,
    HOPELESS,
    LAUNCH,
    MOST_ACTIVE,
    NO_ROUTE,
    NONE,
    PENDING,
    REJECTED,
    TOO_MANY_QUERIES,
    World,
)
from helix.simulate.system import Floats, Ints

MAXFLOW, SWARM, RANDOM, SHORTEST_QUEUE = range(4)
LAUNCH_EVENTS = 2  # a new request, and the coordinator's look for what to send


class Load(NamedTuple):
    """What is asked of the service, in numbers."""

    scheduler: int
    offline: bool
    doubled: bool
    high_water: float
    ratio: float
    feed: float
    initial: int
    stagger_s: float
    origin: float
    begin: float
    """Of the window that counts."""
    end: float
    horizon: float
    check_s: float
    """How often the throughput so far is compared with the least that is wanted."""
    least_tokens_per_s: float
    words: Ints
    """The random generator's state."""
    inputs: Ints
    """Offline: the lengths to draw from; online: those of the arrivals."""
    outputs: Ints
    times: Floats
    """Of the arrivals."""


class Log(NamedTuple):
    """Latencies in the window."""

    prompt: Floats
    decode: Floats
    filled: Ints
    """How many of both."""


@compiled
def run(w: World, load: Load) -> Log:
    """Simulate to the horizon; the world is left as it stands then, with the reason of any stop."""
    log = Log(np.empty(1 << 10), np.empty(1 << 12), np.zeros(2, np.int64))
    if load.offline:
        for i in range(load.initial):
            _launch(w, load, load.origin + load.stagger_s * i, load.origin)
    arrival = 0
    check = load.begin + load.check_s
    while w.counts[FAULT] == FINE:
        time = w.heap[0].time if w.counts[PENDING] else np.inf
        if time > check:
            if log.filled[1] < load.least_tokens_per_s * (check - load.begin):
                w.counts[FAULT] = HOPELESS
                break
            check += load.check_s
        if arrival < len(load.times) and load.times[arrival] < time:
            time = load.times[arrival]
            slot = _new_slot(w, load.inputs[arrival], load.outputs[arrival])
            arrival += 1
            if slot != NONE:
                _send_query(w, load, slot, time)
            continue
        if time > load.horizon or time == np.inf:
            break
        kind, item = pop(w)
        log = _handle(w, load, log, kind, item, time)
    return log


@compiled
def _handle(w: World, load: Load, log: Log, kind: int, item: int, now: float) -> Log:
    if kind == FINISH:
        _finish(w, load, item, now)
    elif kind == ARRIVE:
        if w.batches[item].head == NONE and w.places[item].wakes == now:
            look_for_work(w, item, now, load.doubled)
    elif kind == ANSWER:
        log = _with_room(log)
        _answer(w, load, log, take(w, w.lines, item), now)
    elif kind == LAUNCH:
        _send_query(w, load, item, now)
    return log


@compiled
def _finish(w: World, load: Load, place: int, now: float) -> None:
    count_busy(w, load, place, now)
    leaves = finish_layers(w, place)
    if leaves:
        slot = w.batches[place].head
        w.batches[place].head = NONE
        while slot != NONE:
            after = w.slots[slot].following
            w.slots[slot].hop += 1
            send_along_route(w, slot, now)
            slot = after
    else:
        pass_to_next_layer(w, place)
    march(w, place)
    look_for_work(w, place, now, load.doubled)


@compiled
def count_busy(w: World, load: Load, place: int, now: float) -> None:
    """Add the part of the batch's time that lies in the window."""
    w.places[place].busy += max(0.0, min(now, load.end) - max(w.places[place].began, load.begin))


@compiled
def _launch(w: World, load: Load, time: float, now: float) -> None:
    """Draw a query that will be sent at `time`."""
    drawn = draw_below(load.words, len(load.inputs))
    slot = _new_slot(w, load.inputs[drawn], load.outputs[drawn])
    if slot != NONE:
        push(w, time, now, next_number(w) + LATER, LAUNCH, slot)


@compiled
def _new_slot(w: World, length: int, output: int) -> int:
    slot = w.counts[FREE_SLOT]
    if slot == NONE:
        w.counts[FAULT] = TOO_MANY_QUERIES
        return NONE
    w.counts[FREE_SLOT] = w.slots[slot].following
    w.slots[slot].input, w.slots[slot].output, w.slots[slot].done = length, output, 0
    return slot


@compiled
def _free_slot(w: World, slot: int) -> None:
    w.slots[slot].following = w.counts[FREE_SLOT]
    w.counts[FREE_SLOT] = slot


@compiled
def _send_query(w: World, load: Load, slot: int, now: float) -> None:
    """Route a new query and send its prompt; offline it is dropped where there is no route."""
    w.counts[ACTIVE] += 1
    w.counts[MOST_ACTIVE] = max(w.counts[MOST_ACTIVE], w.counts[ACTIVE])
    if not choose_route(w, slot, load.high_water, load.ratio):
        w.counts[EVENTS] += 1
        w.counts[ACTIVE] -= 1
        w.counts[REJECTED] += 1
        _free_slot(w, slot)
        if not load.offline:
            w.counts[FAULT] = NO_ROUTE
        return
    w.counts[EVENTS] += LAUNCH_EVENTS
    w.slots[slot].created, w.slots[slot].hop = now, 0
    send_along_route(w, slot, now)


@compiled
def _answer(w: World, load: Load, log: Log, slot: int, now: float) -> None:
    """Record an iteration that is back at the coordinator and send the next, if there is one."""
    prompt = w.slots[slot].done == 0
    if load.begin <= now <= load.end:
        _record(log, prompt, now - w.slots[slot].created)
    w.slots[slot].done += 1
    finished = w.slots[slot].done > w.slots[slot].output
    if finished:
        _end_query(w, load, slot)
    else:
        w.counts[EVENTS] += LAUNCH_EVENTS
        count_decode(w, slot)
        w.slots[slot].created, w.slots[slot].hop = now, 0
        send_along_route(w, slot, now)
    if load.offline and (prompt or finished) and bottleneck(w) <= load.feed:
        _launch(w, load, now + load.stagger_s, now)


@compiled
def _end_query(w: World, load: Load, slot: int) -> None:
    expected = int(w.slots[slot].input + 240 * load.ratio)
    expect(w, slot, expected)
    held = w.slots[slot].input + w.slots[slot].output
    for hop in range(w.slots[slot].hops - 1):
        link = w.route[slot, hop]
        place = w.links[link].head
        w.places[place].kv -= held * (w.places[place].end - w.links[link].entry)
    w.counts[ACTIVE] -= 1
    w.counts[FINISHED] += 1
    _free_slot(w, slot)


@compiled
def _record(log: Log, prompt: bool, latency: float) -> None:
    if prompt:
        log.prompt[log.filled[0]] = latency
        log.filled[0] += 1
    else:
        log.decode[log.filled[1]] = latency
        log.filled[1] += 1


@compiled
def _with_room(log: Log) -> Log:
    """Return a log that has room for one more of each."""
    if log.filled[0] < len(log.prompt) and log.filled[1] < len(log.decode):
        return log
    prompt, decode = np.empty(2 * len(log.prompt)), np.empty(2 * len(log.decode))
    prompt[: len(log.prompt)] = log.prompt
    decode[: len(log.decode)] = log.decode
    return Log(prompt, decode, log.filled)
