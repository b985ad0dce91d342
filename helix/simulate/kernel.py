"""The compiled simulator: the same service as `engine.py`, without the events that change nothing.

Work that waits for a busy node costs nothing, a batch that stays together is one event, and
transfers on max-flow's links are computed when their turn is known. Ties keep the original's
order: an event's key is when the original would have created it.
"""

# numpy knows no fields of records and takes elements for arrays; numba checks types as it compiles.
# pyright: basic, reportArgumentType=false, reportReturnType=false, reportAttributeAccessIssue=false

import numpy as np

from helix.plan.bare import bare
from helix.simulate.kernel_by_hop import handle
from helix.simulate.kernel_coordinator import (
    Load,
    Log,
    count_busy,
    end_query,
    free_slot,
    has_room,
    launch,
    longer_log,
    new_slot,
    open_query,
    record,
)
from helix.simulate.kernel_flow import (
    bottleneck,
    choose_route,
    count_decode,
    expect,
    expected_entries,
)
from helix.simulate.kernel_heap import next_soon, pop
from helix.simulate.kernel_link import receive, send_along_route, take
from helix.simulate.kernel_node import finish_layers, look_for_work, march, pass_to_next_layer
from helix.simulate.kernel_state import (
    ACTIVE,
    ANSWER,
    ARRIVALS,
    ARRIVE,
    CHECKS,
    DECODES,
    EVENTS,
    FAULT,
    FINE,
    FINISH,
    HOPELESS,
    LAUNCH,
    LOG_FULL,
    MAXFLOW,
    NO_ROUTE,
    NONE,
    PENDING,
    REJECTED,
    SOON_END,
    SOON_FIRST,
    STOPPED,
    World,
)

LAUNCH_EVENTS = 2  # a new request, and the coordinator's look for what to send


def run(w: World, load: Load) -> Log:
    """Simulate to the horizon; the world is left as it stands then, with the reason of any stop."""
    log = longer_log(Log(np.empty(0), np.empty(0)), len(w.slots))
    for i in range(load.initial):
        launch(w, load, load.origin + load.stagger_s * i, load.origin)
    now = load.origin
    while True:
        now = _advance(w, load, log, now)
        if w.counts[FAULT] != LOG_FULL:
            return log
        w.counts[FAULT] = FINE
        log = longer_log(log, len(w.slots))


@bare
def _advance(w: World, load: Load, log: Log, now: float) -> float:
    """Let events happen until there are none before the horizon, or something stops the run."""
    while w.counts[FAULT] == FINE:
        time = w.heap[0].time if w.counts[PENDING] else np.inf
        arrival = w.counts[ARRIVALS]
        if w.counts[SOON_END] > w.counts[SOON_FIRST] and time > now:
            kind, item = next_soon(w)
        elif arrival < len(load.times) and load.times[arrival] < time:
            now = float(load.times[arrival])
            kind, item = LAUNCH, new_slot(w, load.inputs[arrival], load.outputs[arrival])
            w.counts[ARRIVALS] += 1
        elif time > load.horizon or time == np.inf:
            break
        else:
            now = time
            kind, item = pop(w)
        if item != NONE:
            _handle(w, load, log, kind, item, now)
        _check(w, load, log, now)
    return now


@bare
def _check(w: World, load: Load, log: Log, now: float) -> None:
    """Stop where asked to, or the log is full, or the throughput stays below what is wanted."""
    if load.stop[0]:
        w.counts[FAULT] = STOPPED
    if not has_room(w, log):
        w.counts[FAULT] = LOG_FULL
    if now - load.begin > load.check_s * (w.counts[CHECKS] + 1):
        w.counts[CHECKS] += 1
        if w.counts[DECODES] < load.least_tokens_per_s * (now - load.begin):
            w.counts[FAULT] = HOPELESS


@bare
def _handle(w: World, load: Load, log: Log, kind: int, item: int, now: float) -> None:
    if load.scheduler != MAXFLOW:
        handle(w, load, log, kind, item, now)
    elif kind == FINISH:
        _finish(w, load, item, now)
    elif kind == ARRIVE:
        if w.batches[item].head == NONE and w.places[item].wakes == now:
            look_for_work(w, item, now, load.doubled)
    elif kind == ANSWER:
        _answer(w, load, log, take(w, w.lines, item), now)
    elif kind == LAUNCH:
        _send_query(w, load, item, now)


@bare
def _finish(w: World, load: Load, place: int, now: float) -> None:
    count_busy(w, load, place, now)
    receive(w, place, now)  # what came in the meantime is queued before the batch moves on
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


@bare
def _send_query(w: World, load: Load, slot: int, now: float) -> None:
    """Route a new query and send its prompt; offline it is dropped where there is no route."""
    open_query(w)
    if not choose_route(w, slot, load.high_water, load.ratio):
        w.counts[EVENTS] += 1
        w.counts[ACTIVE] -= 1
        w.counts[REJECTED] += 1
        free_slot(w, slot)
        if not load.offline:
            w.counts[FAULT] = NO_ROUTE
        return
    w.counts[EVENTS] += LAUNCH_EVENTS
    w.slots[slot].created, w.slots[slot].hop = now, 0
    send_along_route(w, slot, now)


@bare
def _answer(w: World, load: Load, log: Log, slot: int, now: float) -> None:
    """Record an iteration that is back at the coordinator and send the next, if there is one."""
    prompt = w.slots[slot].done == 0
    record(w, load, log, slot, now)
    w.slots[slot].done += 1
    finished = w.slots[slot].done > w.slots[slot].output
    if finished:
        expect(w, slot, expected_entries(w, slot, load.ratio))
        end_query(w, slot)
    else:
        w.counts[EVENTS] += LAUNCH_EVENTS
        count_decode(w, slot)
        w.slots[slot].created, w.slots[slot].hop = now, 0
        send_along_route(w, slot, now)
    if load.offline and (prompt or finished) and bottleneck(w) <= load.feed:
        launch(w, load, now + load.stagger_s, now)
