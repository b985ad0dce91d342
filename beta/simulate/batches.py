"""The one rule of batching: which of a model's waiting requests a free stage takes at once.

The largest size of the profile of which so many wait, and whose answer still comes by the tightest
deadline among them. A stage that is free waits for nobody: a request waits for company only while
the stages are busy anyhow, and no longer than the tightest deadline allows. But a first request
that has hardly any time left must not make batches small for all behind it, or a short overload
halves what is answered for as long as it lasts. So a larger batch of those who have the time goes
first where, of all that wait now, more are answered in time so; who is passed over stays.

Both simulators that batch and the group managers of `run` call these functions. AlpaServe §5 names
the rule, with the first request's deadline alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from beta.inputs.arrays import Bools, Floats, Ints
from beta.inputs.model import Model
from beta.simulate.admission import book
from common.kernels import compiled

NEVER = 1e100
NONE = -1


class Lines(NamedTuple):
    """Who waits for a group."""

    order: Ints
    """Requests by model, each model's in order of arrival."""
    head: Ints
    tail: Ints
    """Model m's are `order[head[m]:tail[m]]`."""
    hosted: Bools
    """Whether the group has the model: (models,)."""
    since: Floats
    """By request: who waits longest has the least."""
    deadline: Floats
    """By request."""


class Pipe(NamedTuple):
    """What a group does with them."""

    sizes: Ints
    """Batch sizes, ascending, 1 first."""
    clock: Floats
    """When each stage gets free."""
    latency: Floats
    """Seconds: (model, size, stage); infinite where not profiled."""
    after_s: float
    """From the last stage to the answer."""


def sizes_of(models: Sequence[Model]) -> Ints:
    """Return all batch sizes that some model is profiled with, ascending, 1 first."""
    records = [record for model in models for record in model.profile.records.values()]
    return np.array(sorted({1, *(size for r in records for size in r.stage_s)}), np.int64)


@compiled
def shares(latency: Floats, sizes: Ints) -> Floats:
    """Return each model's seconds of a request in its most efficient batch: (model, stage).

    What a request in the line is taken to cost those behind it, whatever batch it will be in.
    """
    found = latency[:, 0].copy()
    for m in range(len(found)):
        for b in range(1, len(sizes)):
            each = latency[m, b] / sizes[b]
            if each.sum() < found[m].sum():
                found[m] = each
    return found


@compiled
def last_end(clock: Floats, latency: Floats, now: float) -> float:
    """Return when work that is there `now` would leave the last stage; `clock` as in admission."""
    for k in range(len(latency)):
        now = max(now, clock[k]) + latency[k]
    return now


@compiled
def longest_waiting(lines: Lines) -> int:
    """Return the group's model whose first request waits longest, or NONE."""
    best, oldest = NONE, NEVER
    for m in range(len(lines.head)):
        if lines.hosted[m] and lines.head[m] < lines.tail[m]:
            since = lines.since[lines.order[lines.head[m]]]
            if since < oldest:
                best, oldest = m, since
    return best


@compiled
def largest(deadlines: Floats, pipe: Pipe, model: int, now: float) -> int:
    """Return the number of the largest size in time for all in it, 0 (one request) at least.

    `deadlines` are of a model's waiting requests, the first one first.
    """
    best, due, looked = 0, NEVER, 0
    for b in range(len(pipe.sizes)):
        if pipe.sizes[b] > len(deadlines):
            break
        while looked < pipe.sizes[b]:
            due = min(due, deadlines[looked])
            looked += 1
        end = last_end(pipe.clock, pipe.latency[model, b], now) + pipe.after_s
        if end > NEVER:
            continue
        if end > due:
            break
        best = b
    return best


@compiled
def _largest_of(lines: Lines, pipe: Pipe, model: int, now: float) -> int:
    low = lines.head[model]
    first = lines.order[low : min(lines.tail[model], low + pipe.sizes[-1])]
    return largest(lines.deadline[first], pipe, model, now)


@compiled
def answered(lines: Lines, pipe: Pipe, now: float) -> int:
    """Return how many of all that wait are in time if each batch is just the largest; in place.

    Who would be late even alone takes no time.
    """
    count = 0
    while True:
        m = longest_waiting(lines)
        if m == NONE:
            return count
        now = max(now, pipe.clock[0])
        alone = last_end(pipe.clock, pipe.latency[m, 0], now) + pipe.after_s
        if alone > lines.deadline[lines.order[lines.head[m]]]:
            lines.head[m] += 1
            continue
        b = _largest_of(lines, pipe, m, now)
        book(pipe.clock, pipe.latency[m, b], now)
        lines.head[m] += pipe.sizes[b]
        count += pipe.sizes[b]


@compiled
def _first_in_time(lines: Lines, model: int, end: float, count: int) -> bool:
    """Move the first `count` requests of a model that are due after `end` to its line's front.

    The others keep their order behind them. False, and nothing is moved, if there are fewer.
    """
    low, high = lines.head[model], lines.tail[model]
    picked, last = 0, low
    while last < high and picked < count:
        picked += lines.deadline[lines.order[last]] >= end
        last += 1
    if picked < count:
        return False
    looked = lines.order[low:last].copy()
    front, back = low, low + count
    for request in looked:
        if lines.deadline[request] >= end:
            lines.order[front] = request
            front += 1
        else:
            lines.order[back] = request
            back += 1
    return True


@compiled
def _copy(lines: Lines) -> Lines:
    order, head = lines.order.copy(), lines.head.copy()
    return Lines(order, head, lines.tail, lines.hosted, lines.since, lines.deadline)


@compiled
def _outcome(tried: Lines, pipe: Pipe, model: int, b: int, now: float) -> int:
    """Return how many are in time if the model's first batch is of that size; in place."""
    clock = pipe.clock.copy()
    book(clock, pipe.latency[model, b], now)
    tried.head[model] += pipe.sizes[b]
    rest = Pipe(pipe.sizes, clock, pipe.latency, pipe.after_s)
    return int(pipe.sizes[b]) + answered(tried, rest, now)


@compiled
def form(lines: Lines, pipe: Pipe, model: int, now: float) -> int:
    """Move the model's next batch to its line's front; return the number of its size.

    The first request must be in time alone.
    """
    plain = best = _largest_of(lines, pipe, model, now)
    most = NONE
    for b in range(plain + 1, len(pipe.sizes)):
        if pipe.sizes[b] > lines.tail[model] - lines.head[model]:
            break
        end = last_end(pipe.clock, pipe.latency[model, b], now) + pipe.after_s
        if end > NEVER:
            continue
        tried = _copy(lines)
        if not _first_in_time(tried, model, end, pipe.sizes[b]):
            break
        if most == NONE:
            most = _outcome(_copy(lines), pipe, model, plain, now)
        count = _outcome(tried, pipe, model, b, now)
        if count > most:
            best, most = b, count
    if best > plain:
        end = last_end(pipe.clock, pipe.latency[model, best], now) + pipe.after_s
        _first_in_time(lines, model, end, pipe.sizes[best])
    return best
