"""Events in order of time, then of when they were created, then of their number."""

# numpy knows no fields of records and takes elements for arrays; numba checks types as it compiles.
# pyright: basic, reportArgumentType=false, reportReturnType=false, reportAttributeAccessIssue=false

from helix.plan.bare import bare
from helix.simulate.kernel_state import (
    FAULT,
    ORDER,
    PENDING,
    SOON_END,
    SOON_FIRST,
    TOO_MANY_QUERIES,
    World,
)

KIND_BITS = 32
LATER = 1 << 48


@bare
def next_number(w: World) -> int:
    """Return a number larger than all before it."""
    w.counts[ORDER] += 1
    return w.counts[ORDER]


@bare
def _before(w: World, time: float, created: float, order: int, other: int) -> bool:
    if time != w.heap[other].time:
        return time < w.heap[other].time
    if created != w.heap[other].created:
        return created < w.heap[other].created
    return order < w.heap[other].order


@bare
def _put(w: World, place: int, time: float, created: float, order: int, what: int) -> None:
    w.heap[place].time = time
    w.heap[place].created = created
    w.heap[place].order = order
    w.heap[place].what = what


@bare
def push(w: World, time: float, created: float, order: int, kind: int, item: int) -> None:
    """Add an event; `created` is when the original would have created it."""
    at = w.counts[PENDING]
    if at == len(w.heap):
        w.counts[FAULT] = TOO_MANY_QUERIES
        return
    w.counts[PENDING] = at + 1
    while at > 0:
        parent = (at - 1) >> 1
        if not _before(w, time, created, order, parent):
            break
        _put(
            w, at, w.heap[parent].time, w.heap[parent].created,
            w.heap[parent].order, w.heap[parent].what,
        )  # fmt: skip
        at = parent
    _put(w, at, time, created, order, kind << KIND_BITS | item)


@bare
def pop(w: World) -> tuple[int, int]:
    """Take the first event out and return its kind and item."""
    what = w.heap[0].what
    last = w.counts[PENDING] - 1
    w.counts[PENDING] = last
    time, created, order = w.heap[last].time, w.heap[last].created, w.heap[last].order
    at = 0
    while True:
        child = 2 * at + 1
        if child >= last:
            break
        if child + 1 < last and _before(
            w, w.heap[child + 1].time, w.heap[child + 1].created, w.heap[child + 1].order, child
        ):
            child += 1
        if _before(w, time, created, order, child):
            break
        _put(
            w, at, w.heap[child].time, w.heap[child].created,
            w.heap[child].order, w.heap[child].what,
        )  # fmt: skip
        at = child
    _put(w, at, time, created, order, w.heap[last].what)
    return what >> KIND_BITS, what & ((1 << KIND_BITS) - 1)


@bare
def soon(w: World, kind: int, item: int) -> None:
    """Let something happen now, but after all events that were already due now."""
    end = w.counts[SOON_END]
    if end - w.counts[SOON_FIRST] == len(w.soon):
        w.counts[FAULT] = TOO_MANY_QUERIES
        return
    w.soon[end % len(w.soon)] = kind << KIND_BITS | item
    w.counts[SOON_END] = end + 1


@bare
def next_soon(w: World) -> tuple[int, int]:
    """Take the first of these events out and return its kind and item."""
    first = w.counts[SOON_FIRST]
    what = w.soon[first % len(w.soon)]
    w.counts[SOON_FIRST] = first + 1
    return what >> KIND_BITS, what & ((1 << KIND_BITS) - 1)
