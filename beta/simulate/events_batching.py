"""The event simulator where profiles have batch sizes: groups whose requests wait in one line each.

As `events`, but a first stage that gets free takes a batch by the rule (`batches`). Whoever is
late even alone by then is dropped; and admission takes those ahead in the line to be answered in
their most efficient batches, so that only hopeless work is refused. So do the groups of `run`.
"""

from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np

from beta.inputs.arrays import Bools, Floats, Indices, Ints
from beta.simulate.admission import NOBODY, admit, book, together
from beta.simulate.batches import Lines, Pipe, form, last_end
from common.kernels import compiled

AT_CONTROLLER, AT_GROUP, AT_STAGES, FREE, ANSWERED = 0, 1, 2, 3, 4


class System(NamedTuple):
    """What events read and write; a group's line is a list linked by `before` and `after`."""

    arrival: Floats
    model: Indices
    slo: Floats
    config: Ints
    first: Ints
    groups: Ints
    stages: Ints
    latency: Floats
    """Raw stage latencies: (configs, models, sizes, stages); infinite where not profiled."""
    share: Floats
    """The part of a request in its model's most efficient batch: (configs, models, stages)."""
    sizes: Ints
    delay: Floats
    """Delays drawn before: (kind, draws), used round and round."""
    margin: float
    clock: Floats
    """When each stage gets free: (groups, stages)."""
    outstanding: Ints
    own: Ints
    """Outstanding requests: (model, group)."""
    head: Ints
    tail: Ints
    """First and last request of each group's line; NOBODY: none."""
    before: Ints
    after: Ints
    there: Bools
    """Whether a request of a line has reached its first stage."""
    finish: Floats
    good: Bools
    group_of: Indices


@compiled
def _admit(s: System, now: float, request: int) -> bool:
    """Say whether the answer can be in time behind those in the line."""
    g, m = s.group_of[request], s.model[request]
    c = s.config[g]
    depth, clock = s.stages[c], s.clock[g].copy()
    j = s.head[g]
    while j != NOBODY:
        book(clock, s.share[c, s.model[j], :depth], now)
        j = s.after[j]
    latest = s.arrival[request] + s.slo[request] - s.margin
    return admit(clock, s.latency[c, m, 0, :depth], now, latest) >= 0


@compiled
def _settle(s: System, request: int) -> None:
    s.outstanding[s.group_of[request]] -= 1
    s.own[s.model[request], s.group_of[request]] -= 1


@compiled
def _append(s: System, request: int) -> None:
    g = s.group_of[request]
    s.before[request], s.after[request] = s.tail[g], NOBODY
    if s.tail[g] == NOBODY:
        s.head[g] = request
    else:
        s.after[s.tail[g]] = request
    s.tail[g] = request


@compiled
def _leave(s: System, request: int) -> None:
    g, before, after = s.group_of[request], s.before[request], s.after[request]
    if before == NOBODY:
        s.head[g] = after
    else:
        s.after[before] = after
    if after == NOBODY:
        s.tail[g] = before
    else:
        s.before[after] = before


@compiled
def _drop(s: System, now: float, group: int) -> int:
    """Drop who is late even alone; return how many are left that are at the first stage."""
    depth, left = s.stages[s.config[group]], 0
    j = s.head[group]
    while j != NOBODY:
        following, latency = s.after[j], s.latency[s.config[group], s.model[j], 0, :depth]
        if not s.there[j]:
            pass
        elif last_end(s.clock[group], latency, now) > s.arrival[j] + s.slo[j]:
            _leave(s, int(j))
            s.finish[j] = now
            _settle(s, int(j))
        else:
            left += 1
        j = following
    return left


@compiled
def _lines(s: System, group: int, count: int) -> tuple[Lines, Ints]:
    """Return those at the first stage by model, numbered as they came, and who they are."""
    models = s.latency.shape[1]
    requests, rows = np.empty(count, np.int64), np.empty(count, np.int64)
    due, i, j = np.empty(count), 0, s.head[group]
    while j != NOBODY:
        if s.there[j]:
            requests[i], rows[i] = j, s.model[j]
            due[i] = s.arrival[j] + s.slo[j] - s.margin
            i += 1
        j = s.after[j]
    tail = np.cumsum(np.bincount(rows, minlength=models)).astype(np.int64)
    head = np.zeros(models, np.int64)
    head[1:] = tail[:-1]
    order, since = np.argsort(rows, kind="mergesort"), np.arange(count).astype(np.float64)
    return Lines(order, head, tail, np.ones(models, np.bool_), since, due), requests


@compiled
def _form(s: System, now: float, group: int) -> tuple[Ints, int]:
    """Take a batch out of a line; return its requests and its size's number."""
    c = s.config[group]
    depth = s.stages[c]
    count = _drop(s, now, group)
    if not count:
        return np.empty(0, np.int64), 0
    lines, requests = _lines(s, group, count)
    m = s.model[requests[0]]
    pipe = Pipe(s.sizes, s.clock[group, :depth], s.latency[c, :, :, :depth], 0.0)
    b = form(lines, pipe, int(m), now)
    low = lines.head[m]
    taken = requests[lines.order[low : low + s.sizes[b]]]
    for i in range(len(taken)):
        _leave(s, int(taken[i]))
    return taken, b


@compiled
def _dispatch(s: System, now: float, request: int) -> bool:
    """Send a request to its model's least busy group; say whether there is one."""
    m, group = s.model[request], NOBODY
    if m >= 0:
        hosts = s.groups[s.first[m] : s.first[m + 1]]
        group = together(hosts, s.outstanding, s.own[m], s.sizes[-1])
    s.group_of[request], s.finish[request] = group, now
    if group != NOBODY:
        s.outstanding[group] += 1
        s.own[m, group] += 1
    return group != NOBODY


@compiled
def _enter_line(s: System, now: float, request: int) -> bool:
    """Take a request into its group's line, or refuse it."""
    if _admit(s, now, request):
        _append(s, request)
        return True
    s.finish[request] = now
    _settle(s, request)
    return False


@compiled
def _answer(s: System, now: float, request: int) -> None:
    s.finish[request] = now
    s.good[request] = now - s.arrival[request] <= s.slo[request]
    _settle(s, request)


@compiled
def _started(s: System, now: float, group: int) -> tuple[Ints, float]:
    """Start a batch if the first stage is free; return its requests and when they are answered."""
    if s.clock[group, 0] > now:
        return np.empty(0, np.int64), now
    taken, b = _form(s, now, group)
    if not len(taken):
        return taken, now
    c = s.config[group]
    return taken, book(s.clock[group], s.latency[c, s.model[taken[0]], b, : s.stages[c]], now)


@compiled
def play(s: System) -> None:
    """Handle all events in order of time; equal times in the order in which they were made."""
    drawn, draws = np.zeros(3, np.int64), s.delay.shape[1]
    events = [
        (s.arrival[i] + s.delay[0, i % draws], i, AT_CONTROLLER, i) for i in range(len(s.arrival))
    ]
    events.sort()
    made = len(events)
    while events:
        now, _, kind, number = heappop(events)
        if kind == ANSWERED:
            _answer(s, now, number)
            continue
        if kind < AT_STAGES:
            at_group = kind == AT_GROUP
            if _enter_line(s, now, number) if at_group else _dispatch(s, now, number):
                following = kind + 1
                when = now + s.delay[following, drawn[following] % draws]
                heappush(events, (when, made, following, number))
                drawn[following], made = drawn[following] + 1, made + 1
            continue
        group = number
        if kind == AT_STAGES:
            s.there[number], group = True, s.group_of[number]
        taken, end = _started(s, now, group)
        if len(taken):
            heappush(events, (float(s.clock[group, 0]), made, FREE, group))
        for request in taken:
            heappush(events, (end, made, ANSWERED, request))
        made += 1 + len(taken)
