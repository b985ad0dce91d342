"""Incremental maximum flow of a changing placement, compiled.

State is the flow on every link as a P x P matrix, and what passes through every place as its sums.
A machine that is about to change gives its flow back (`take_out`); afterwards `fill_up` augments
along shortest paths until the flow is maximal again. Machines serve as single vertices with a
capacity; which links fit follows from the runs of layers themselves, so nothing is rebuilt.
`helix.plan.flow_graph` is the readable reference.
"""

import numpy as np

from helix.plan.bare import bare
from helix.plan.search_problem import Floats, Ints, Scratch

LEAST = 1e-6  # tokens per second that count as none
SOURCE, SINK, FIRST = 0, 1, 2  # as in helix.inputs.cluster


@bare
def fits(starts: Ints, ends: Ints, tail: int, head: int, layers: int, partial: bool) -> bool:
    """Say whether work may pass from one place to another."""
    if tail == SOURCE:
        return starts[head - FIRST] == 0 and ends[head - FIRST] > 0
    if head == SINK:
        return ends[tail - FIRST] == layers
    reach = ends[tail - FIRST]
    if partial:
        return starts[head - FIRST] <= reach < ends[head - FIRST] and reach > 0
    return starts[head - FIRST] == reach and ends[head - FIRST] > reach > 0


@bare
def take_out(ends: Ints, flow: Floats, through: Floats, place: int, over: Floats) -> None:
    """Remove all flow through a machine; what its neighbours then have too much is sent back.

    `ends` are those of the placement that the flow is of. Work passes to machines that end later,
    so the flow has no circle: taken in this order, every machine gives back at once what it has
    too much, and flow stays conserved wherever it went. `over` is memory for one number a place.
    """
    for other in range(flow.shape[0]):
        over[other] = flow[other, place]
        flow[other, place] = 0.0
    _lessen(ends, flow, through, over, False)
    for other in range(flow.shape[0]):
        over[other] = flow[place, other]
        flow[place, other] = 0.0
    _lessen(ends, flow, through, over, True)
    through[place] = 0.0
    total(flow, through)


@bare
def total(flow: Floats, through: Floats) -> float:
    """Note what leaves the source and reaches the sink, by the matrix; return it, tokens/s."""
    through[SOURCE] = 0.0
    through[SINK] = 0.0
    for other in range(FIRST, flow.shape[0]):
        through[SOURCE] += flow[SOURCE, other]
        through[SINK] += flow[other, SINK]
    return through[SOURCE]


@bare
def _lessen(ends: Ints, flow: Floats, through: Floats, over: Floats, onward: bool) -> None:
    """Lessen what comes into machines by `over`, from those that end last back to the source.

    `onward`: what leaves them instead, from those that end first on to the sink.
    """
    sign = -1 if onward else 1
    while True:
        here = -1
        for place in range(FIRST, flow.shape[0]):
            later = here < 0 or sign * ends[place - FIRST] > sign * ends[here - FIRST]
            if over[place] > 0 and later:
                here = place
        if here < 0:
            return
        left, stays = over[here], 0.0
        over[here] = 0.0
        for other in range(flow.shape[0]):
            tail, head = (here, other) if onward else (other, here)
            amount = min(left, flow[tail, head])
            flow[tail, head] -= amount
            over[other] += amount
            left -= amount
            stays += flow[tail, head]
        through[here] = stays


@bare
def fill_up(
    starts: Ints, ends: Ints, layers: int, partial: bool, rates: Floats, link_rates: Floats,
    flow: Floats, through: Floats, scratch: Scratch,
) -> float:  # fmt: skip
    """Augment the flow until it is maximal and return its value.

    The search walks pairs (machine, side): side 0 is where work arrives, side 1 where it leaves.
    """
    before, queue = scratch.before, scratch.queue
    while _reach(starts, ends, layers, partial, rates, link_rates, flow, through, before, queue):
        amount = _along(starts, ends, rates, link_rates, flow, through, before, np.inf, 0.0)
        _along(starts, ends, rates, link_rates, flow, through, before, np.inf, amount)
        if amount <= 0:  # rounding has left nothing of the way
            break
    return total(flow, through)


@bare
def _reach(
    starts: Ints, ends: Ints, layers: int, partial: bool, rates: Floats, link_rates: Floats,
    flow: Floats, through: Floats, before: Ints, queue: Ints,
) -> bool:  # fmt: skip
    """Search breadth first from the source; fill in where each (place, side) is reached from."""
    for state in range(len(before)):
        before[state] = -1
    leaving = 2 * SOURCE + 1
    before[leaving] = leaving
    queue[0] = leaving
    begin, end = 0, 1
    while begin < end:
        here, side = queue[begin] >> 1, queue[begin] & 1
        begin += 1
        if side == 1:
            end = _reach_on(
                starts, ends, layers, partial, link_rates, flow, through, before, queue, end, here
            )
            if before[2 * SINK] >= 0:
                return True
        else:
            end = _reach_through(starts, ends, rates, flow, through, before, queue, end, here)
    return False


@bare
def _reach_on(
    starts: Ints, ends: Ints, layers: int, partial: bool, link_rates: Floats, flow: Floats,
    through: Floats, before: Ints, queue: Ints, end: int, here: int,
) -> int:  # fmt: skip
    """Go on from where work leaves a place: along links with room, or back through the machine."""
    state = 2 * here + 1
    for there in range(SINK, flow.shape[0]):
        room = link_rates[here, there] - flow[here, there]
        if before[2 * there] >= 0 or room <= LEAST:
            continue
        if fits(starts, ends, here, there, layers, partial):
            before[2 * there] = state
            queue[end] = 2 * there
            end += 1
    if here != SOURCE and before[2 * here] < 0 and through[here] > LEAST:
        before[2 * here] = state
        queue[end] = 2 * here
        end += 1
    return end


@bare
def _reach_through(
    starts: Ints, ends: Ints, rates: Floats, flow: Floats, through: Floats, before: Ints,
    queue: Ints, end: int, here: int,
) -> int:  # fmt: skip
    """Go on from where work arrives: through the machine, or back along links with flow."""
    room = rates[here - FIRST, ends[here - FIRST] - starts[here - FIRST]] - through[here]
    if before[2 * here + 1] < 0 and room > LEAST:
        before[2 * here + 1] = 2 * here
        queue[end] = 2 * here + 1
        end += 1
    for there in range(FIRST, flow.shape[0]):
        if before[2 * there + 1] < 0 and flow[there, here] > LEAST:
            before[2 * there + 1] = 2 * here
            queue[end] = 2 * there + 1
            end += 1
    return end


@bare
def _along(
    starts: Ints, ends: Ints, rates: Floats, link_rates: Floats, flow: Floats, through: Floats,
    before: Ints, most: float, pushed: float,
) -> float:  # fmt: skip
    """Walk the path found from the sink back, push so much along it, return the room it had."""
    state = 2 * SINK
    while state != 2 * SOURCE + 1:
        came = int(before[state])
        here, there = came >> 1, state >> 1
        if here == there and came & 1 == 0:  # through a machine
            held = ends[here - FIRST] - starts[here - FIRST]
            room = float(rates[here - FIRST, held]) - float(through[here])
            through[here] += pushed
        elif here == there:  # back through it
            room = float(through[here])
            through[here] -= pushed
        elif came & 1 == 1:  # along a link
            room = float(link_rates[here, there]) - float(flow[here, there])
            flow[here, there] += pushed
        else:  # back along it
            room = float(flow[there, here])
            flow[there, here] -= pushed
        most = min(most, room)
        state = came
    return most
