"""What happens under the schedulers that decide hop by hop, event by event as in the original."""

# numpy knows no fields of records and takes elements for arrays; numba checks types as it compiles.
# pyright: basic, reportArgumentType=false, reportReturnType=false, reportAttributeAccessIssue=false

from helix.inputs.cluster import SINK, SOURCE
from helix.plan.bare import bare
from helix.simulate.kernel_coordinator import (
    Load,
    Log,
    count_busy,
    end_query,
    launch,
    open_query,
    record,
)
from helix.simulate.kernel_heap import next_number, push, soon
from helix.simulate.kernel_hops import release, transmit
from helix.simulate.kernel_link import append, take, tokens
from helix.simulate.kernel_node import finish_layers, look_for_work, march, pass_to_next_layer
from helix.simulate.kernel_state import (
    ARRIVED,
    EVENTS,
    FINISH,
    FREE,
    GATHER,
    LAUNCH,
    NONE,
    REQUEST,
    TRANSMIT,
    WORK,
    World,
)


@bare
def handle(w: World, load: Load, log: Log, kind: int, item: int, now: float) -> None:
    """Let one event happen; `item` is what its kind says."""
    if kind == FINISH:
        _finish(w, load, item, now)
    elif kind == FREE:
        _leave_sender(w, load, item, now)
    elif kind == ARRIVED:
        _arrive(w, load, item)
    elif kind == TRANSMIT:
        transmit(w, load.words, load.scheduler, item, now)
    elif kind == WORK:
        if w.batches[item].head == NONE:
            look_for_work(w, item, now, load.doubled)
    elif kind == GATHER:
        _gather(w, load, log, now)
    else:
        if kind == LAUNCH:
            open_query(w)
        w.counts[EVENTS] += 2  # a new request, and the look for what to send
        w.slots[item].created, w.slots[item].hop = now, 0
        append(w, w.leaving, SOURCE, item)
        soon(w, TRANSMIT, SOURCE)


@bare
def _finish(w: World, load: Load, place: int, now: float) -> None:
    count_busy(w, load, place, now)
    if finish_layers(w, place):
        slot = w.batches[place].head
        w.batches[place].head = NONE
        while slot != NONE:
            after = w.slots[slot].following
            w.slots[slot].hop += 1
            append(w, w.leaving, place, slot)
            slot = after
        soon(w, TRANSMIT, place)
    else:
        pass_to_next_layer(w, place)
    march(w, place)
    soon(w, WORK, place)


@bare
def _leave_sender(w: World, load: Load, slot: int, now: float) -> None:
    link = w.route[slot, w.slots[slot].hop]
    release(w, slot, True, load.receiver_free)
    w.counts[EVENTS] += 2  # sent, and the sender's look for more
    soon(w, TRANSMIT, w.links[link].tail)
    push(w, now + w.links[link].latency, now, next_number(w), ARRIVED, slot)


@bare
def _arrive(w: World, load: Load, slot: int) -> None:
    link = w.route[slot, w.slots[slot].hop]
    release(w, slot, False, not load.receiver_free)
    w.counts[EVENTS] += 2  # arrived, and the receiver's look for work
    place = w.links[link].head
    if place == SINK:
        append(w, w.leaving, SINK, slot)
        soon(w, GATHER, SINK)
    else:
        queue = w.places[place].queue + w.links[link].entry - w.places[place].first
        append(w, w.queues, queue, slot)
        w.places[place].buffered += tokens(w, slot)
        soon(w, WORK, place)


@bare
def _gather(w: World, load: Load, log: Log, now: float) -> None:
    """Record all iterations that are back and send the next of each, or a new query."""
    while w.leaving[SINK].head != NONE:
        slot = take(w, w.leaving, SINK)
        record(w, load, log, slot, now)
        w.slots[slot].done += 1
        w.slots[slot].hops = w.slots[slot].hop + 1
        if w.slots[slot].done <= w.slots[slot].output:
            soon(w, REQUEST, slot)
        else:
            end_query(w, slot)
            if load.offline:
                launch(w, load, now + load.stagger_s, now)
