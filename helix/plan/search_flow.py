"""Incremental maximum flow of a changing placement, compiled.

State is the flow on every link as a P x P matrix. A machine that is about to change gives its flow
back (`take_out`); afterwards `fill_up` augments along shortest paths until the flow is maximal
again. Machines serve as single vertices with a capacity; which links fit follows from the runs of
layers themselves, so nothing is rebuilt. `helix.plan.flow_graph` is the readable reference.
"""

import numpy as np

from helix.plan.compiled import bare
from helix.plan.search_problem import Floats, Ints, Scratch

LEAST = 1e-6  # tokens per second that count as none
NOTHING = 1e-9  # what rounding may leave of a flow
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
def take_out(flow: Floats, through: Floats, place: int, path: Ints) -> None:
    """Remove all flow through a machine, path by path.

    Rounding may leave a remainder without a way on or back; it is dropped with the machine.
    `path` is memory for twice as many places and one more.
    """
    places = flow.shape[0]
    while through[place] > LEAST:
        first = last = places
        path[places] = place
        while first > 0 and path[first] > SOURCE:
            first -= 1
            path[first] = _feeder(flow, int(path[first + 1]))
        while last < 2 * places and path[last] != SINK and path[last] >= 0:
            last += 1
            path[last] = _follower(flow, int(path[last - 1]))
        if path[first] != SOURCE or path[last] != SINK:
            break
        amount = np.inf
        for i in range(first, last):
            amount = min(amount, flow[path[i], path[i + 1]])
        for i in range(first, last):
            flow[path[i], path[i + 1]] -= amount
            through[path[i]] -= amount
        through[SINK] -= amount
    for other in range(places):
        flow[place, other] = 0.0
        flow[other, place] = 0.0
    through[place] = 0.0


@bare
def _feeder(flow: Floats, place: int) -> int:
    """Return where most of a place's work comes from, -1 if there is none."""
    best, most = -1, NOTHING
    for other in range(flow.shape[0]):
        if flow[other, place] > most:
            best, most = other, float(flow[other, place])
    return best


@bare
def _follower(flow: Floats, place: int) -> int:
    """Return where most of a place's work goes, -1 if there is none."""
    best, most = -1, NOTHING
    for other in range(flow.shape[0]):
        if flow[place, other] > most:
            best, most = other, float(flow[place, other])
    return best


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
        through[SOURCE] += amount
        through[SINK] += amount
    return through[SOURCE]


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
