"""The coordinator's books: new queries, finished ones, and the latencies in the window."""

# numpy knows no fields of records and takes elements for arrays; numba checks types as it compiles.
# pyright: basic, reportArgumentType=false, reportReturnType=false, reportAttributeAccessIssue=false

from typing import NamedTuple

import numpy as np

from helix.plan.bare import bare
from helix.simulate.kernel_heap import LATER, next_number, push
from helix.simulate.kernel_random import draw_below
from helix.simulate.kernel_state import (
    ACTIVE,
    DECODES,
    FAULT,
    FINISHED,
    FREE_SLOT,
    LAUNCH,
    MOST_ACTIVE,
    NONE,
    PROMPTS,
    TOO_MANY_QUERIES,
    World,
)
from helix.simulate.system import Floats, Ints


class Load(NamedTuple):
    """What is asked of the service, in numbers."""

    scheduler: int
    offline: bool
    doubled: bool
    receiver_free: bool
    """Of the transfer that has left its sender."""
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
    stop: Ints
    """A flag; raised from outside, the simulation ends at once."""


class Log(NamedTuple):
    """Latencies in the window, as many as `PROMPTS` and `DECODES` count."""

    prompt_s: Floats
    decode_s: Floats


def longer_log(log: Log, more: int) -> Log:
    """Return a log with at least twice the room and `more` places on top."""
    return Log(*(np.concatenate((old, np.empty(len(old) + more))) for old in log))


@bare
def count_busy(w: World, load: Load, place: int, now: float) -> None:
    """Add the part of the batch's time that lies in the window."""
    w.places[place].busy += max(0.0, min(now, load.end) - max(w.places[place].began, load.begin))


@bare
def launch(w: World, load: Load, time: float, now: float) -> None:
    """Draw a query that will be sent at `time`."""
    drawn = draw_below(load.words, len(load.inputs))
    slot = new_slot(w, load.inputs[drawn], load.outputs[drawn])
    if slot != NONE:
        push(w, time, now, next_number(w) + LATER, LAUNCH, slot)


@bare
def new_slot(w: World, length: int, output: int) -> int:
    """Return a slot for a query of these tokens, or NONE where all are in use."""
    slot = w.counts[FREE_SLOT]
    if slot == NONE:
        w.counts[FAULT] = TOO_MANY_QUERIES
        return NONE
    w.counts[FREE_SLOT] = w.slots[slot].following
    w.slots[slot].input, w.slots[slot].output, w.slots[slot].done = length, output, 0
    return slot


@bare
def free_slot(w: World, slot: int) -> None:
    """Give a slot back."""
    w.slots[slot].following = w.counts[FREE_SLOT]
    w.counts[FREE_SLOT] = slot


@bare
def end_query(w: World, slot: int) -> None:
    """Free what a finished query holds."""
    held = w.slots[slot].input + w.slots[slot].output
    for hop in range(w.slots[slot].hops - 1):
        link = w.route[slot, hop]
        place = w.links[link].head
        w.places[place].kv -= held * (w.places[place].end - w.links[link].entry)
    w.counts[ACTIVE] -= 1
    w.counts[FINISHED] += 1
    free_slot(w, slot)


@bare
def open_query(w: World) -> None:
    """Count a query that enters the service."""
    w.counts[ACTIVE] += 1
    w.counts[MOST_ACTIVE] = max(w.counts[MOST_ACTIVE], w.counts[ACTIVE])


@bare
def record(w: World, load: Load, log: Log, slot: int, now: float) -> None:
    """Note the latency of an iteration that is back, if it is in the window."""
    if not load.begin <= now <= load.end:
        return
    latency = now - w.slots[slot].created
    if w.slots[slot].done == 0:
        log.prompt_s[w.counts[PROMPTS]] = latency
        w.counts[PROMPTS] += 1
    else:
        log.decode_s[w.counts[DECODES]] = latency
        w.counts[DECODES] += 1


@bare
def has_room(w: World, log: Log) -> bool:
    """Say whether every query could note one more latency."""
    prompts, decodes = w.counts[PROMPTS], w.counts[DECODES]
    return max(prompts - len(log.prompt_s), decodes - len(log.decode_s)) <= -len(w.slots)
