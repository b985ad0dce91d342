"""Compiled twins of `balance.py` and of the memory repair in `memory.py`."""

# numpy's stubs take elements of arrays for arrays; numba checks the types when it compiles.
# pyright: basic, reportArgumentType=false, reportReturnType=false

import numpy as np

from common.kernels import compiled
from metis.plan.balance import SUB_LAYERS, UNOWNED
from metis.plan.cost import BYTES_PER_MS
from metis.plan.memory import ADJUST_SAFETY, ENOUGH, SMALLEST_DEMAND, SPARE
from metis.plan.tables import Floats, Ints, Tables

__all__ = ["BYTES_PER_MS", "adjust", "min_max_split", "sub_layer_split", "tightest"]


@compiled
def tightest(t: Tables, option: int, first: int, end: int, in_flight: int) -> tuple[float, float]:
    """Return (demand, capacity) of the option's tightest memory kind."""
    demand, capacity = 0.0, 0.0
    worst = -np.inf
    for m in range(t.memory_start[option], t.memory_start[option + 1]):
        used = (
            t.ranges[t.memory_static[m], first, end]
            + in_flight * t.ranges[t.memory_activations[m], first, end]
        )
        if used - t.memory_capacity[m] > worst:
            worst = used - t.memory_capacity[m]
            demand, capacity = used, t.memory_capacity[m]
    return demand, capacity


@compiled
def _within(
    t: Tables, option: int, first: int, end: int, bound: float, in_flight: int, memory: bool
) -> bool:
    if t.ranges[t.time[option], first, end] > bound:
        return False
    if not memory:
        return True
    demand, capacity = tightest(t, option, first, end, in_flight)
    return demand <= capacity


@compiled
def _fill_any(
    t: Tables, options: Ints, stages: int, batches: int, bound: float, memory: bool, split: Ints
) -> bool:
    layers = t.ranges.shape[1] - 1
    start_of = np.full((stages + 1, layers + 1), -1, dtype=np.int64)
    start_of[0, 0] = 0
    for s in range(stages):
        flight, start = min(batches, stages - s), -1
        for end in range(1, layers + 1):
            if start_of[s, end - 1] >= 0:
                start = end - 1
            if start >= 0 and _within(t, options[s], start, end, bound, flight, memory):
                start_of[s + 1, end] = start
    if start_of[stages, layers] < 0:
        return False
    split[stages] = layers
    for s in range(stages, 0, -1):
        split[s - 1] = start_of[s, split[s]]
    return True


@compiled
def _fill(
    t: Tables,
    options: Ints,
    stages: int,
    batches: int,
    bound: float,
    memory: bool,
    least: int,
    split: Ints,
) -> bool:
    layers = t.ranges.shape[1] - 1
    split[0] = 0
    for s in range(stages):
        flight = min(batches, stages - s)
        end = split[s] + least
        limit = layers - least * (stages - 1 - s)
        if end > limit:
            return False
        if least and not _within(t, options[s], split[s], end, bound, flight, memory):
            return _fill_any(t, options, stages, batches, bound, memory, split)
        while end < limit and _within(t, options[s], split[s], end + 1, bound, flight, memory):
            end += 1
        split[s + 1] = end
    return split[stages] == layers


@compiled
def _fill_backward(
    t: Tables,
    options: Ints,
    stages: int,
    batches: int,
    bound: float,
    memory: bool,
    least: int,
    split: Ints,
) -> bool:
    split[stages] = t.ranges.shape[1] - 1
    for s in range(stages - 1, -1, -1):
        flight = min(batches, stages - s)
        first = split[s + 1] - least
        limit = least * s
        if first < limit:
            return False
        if least and not _within(t, options[s], first, split[s + 1], bound, flight, memory):
            return False
        while first > limit and _within(
            t, options[s], first - 1, split[s + 1], bound, flight, memory
        ):
            first -= 1
        split[s] = first
    return split[0] == 0


@compiled
def _least_bottleneck(t: Tables, options: Ints, stages: int) -> float:
    layers, worst = t.ranges.shape[1] - 1, 0.0
    for s in range(stages):
        least = np.inf
        for layer in range(s, layers - stages + s + 1):
            least = min(least, t.ranges[t.time[options[s]], layer, layer + 1])
        worst = max(worst, least)
    return worst


@compiled
def _bottleneck(t: Tables, options: Ints, stages: int, split: Ints) -> float:
    worst = 0.0
    for s in range(stages):
        worst = max(worst, t.ranges[t.time[options[s]], split[s], split[s + 1]])
    return worst


@compiled
def _total(t: Tables, options: Ints, stages: int, split: Ints) -> float:
    total = 0.0
    for s in range(stages):
        total += t.ranges[t.time[options[s]], split[s], split[s + 1]]
    return total


@compiled
def min_max_split(
    t: Tables,
    options: Ints,
    stages: int,
    batches: int,
    memory: bool,
    allow_empty: bool,
    split: Ints,
    trial: Ints,
) -> bool:
    """Write the exact min-max split into `split`; False if nothing fits."""
    least = 0 if allow_empty else 1
    if not _fill(t, options, stages, batches, np.inf, memory, least, split):
        return False
    high = _bottleneck(t, options, stages, split)
    low = _least_bottleneck(t, options, stages) if least else 0.0
    while high - low > 1e-9 * high:
        middle = 0.5 * (low + high)
        if _fill(t, options, stages, batches, middle, memory, least, trial):
            split[: stages + 1] = trial[: stages + 1]
            high = _bottleneck(t, options, stages, split)
        else:
            low = middle
    if _fill_backward(t, options, stages, batches, high, memory, least, trial) and _total(
        t, options, stages, trial
    ) < _total(t, options, stages, split):
        split[: stages + 1] = trial[: stages + 1]
    return True


@compiled
def adjust(
    performance: Floats, capacity: Floats, demand: Floats, stages: int, spare: Floats
) -> bool:
    """Rewrite `performance[:stages]` by the original's rule; False if impossible."""
    need, total_spare = 0.0, 0.0
    given = performance[:stages].copy()
    for s in range(stages):
        scaled = given[s] * capacity[s] / max(demand[s], SMALLEST_DEMAND)
        if capacity[s] > demand[s]:
            spare[s] = scaled - given[s]
        else:
            spare[s] = 0.0
            performance[s] = scaled * ADJUST_SAFETY
            need += given[s] - performance[s]
        total_spare += spare[s]
    if total_spare < need:
        return False
    return _hand_out(performance, given, spare, need, stages)


@compiled
def _hand_out(performance: Floats, given: Floats, spare: Floats, need: float, stages: int) -> bool:
    """Give `need` to the stages that have something to spare; False if none has."""
    added = np.zeros(stages)
    taker = np.zeros(stages, dtype=np.bool_)
    while need > ENOUGH:
        total, any_taker = 0.0, False
        for s in range(stages):
            taker[s] = spare[s] > SPARE
            if taker[s]:
                total += given[s]
                any_taker = True
        if not any_taker:
            return False
        for s in range(stages):
            if taker[s]:
                taken = min(spare[s], need * (given[s] / total))
                added[s] += taken
                spare[s] -= taken
                need -= taken
    for s in range(stages):
        performance[s] += added[s]
    return True


@compiled
def sub_layer_split(performance: Floats, stages: int, layer_demand: Floats, split: Ints) -> None:
    """Write the original's split (cumulative owned layers) into `split`."""
    layers = len(layer_demand)
    count = layers * SUB_LAYERS
    capacity = performance[:stages].copy()
    owner = np.full(count, UNOWNED, dtype=np.int16)
    smallest = np.full(stages, count, dtype=np.int64)
    largest = np.full(stages, -1, dtype=np.int64)
    k = 0
    for s in range(stages - 1):
        for q in range(k, count - SUB_LAYERS - 1):
            k = q + 1
            part = layer_demand[q // SUB_LAYERS] / SUB_LAYERS
            if not capacity[s] > part:
                break
            capacity[s] -= part
            owner[q] = s
            smallest[s] = min(smallest[s], q)
            largest[s] = q
    _take_backward(owner, capacity, smallest, largest, stages, layer_demand)
    for q in range(count):
        if owner[q] == UNOWNED:
            s = _roomiest(capacity, smallest, largest, stages, q)
            capacity[s] -= layer_demand[q // SUB_LAYERS] / SUB_LAYERS
            owner[q] = s
            smallest[s] = min(smallest[s], q)
            largest[s] = max(largest[s], q)
    _count_whole_layers(owner, performance, stages, layer_demand, split)


@compiled
def _take_backward(
    owner: Ints, capacity: Floats, smallest: Ints, largest: Ints, stages: int, layer_demand: Floats
) -> None:
    last, lowest, taken = stages - 1, len(owner), 0
    for q in range(len(owner) - 1, -1, -1):
        if owner[q] != UNOWNED:
            continue
        part = layer_demand[q // SUB_LAYERS] / SUB_LAYERS
        if taken < SUB_LAYERS or (q + 1 == lowest and capacity[last] > part):
            capacity[last] -= part
            owner[q] = last
            lowest = q
            taken += 1
            smallest[last] = min(smallest[last], q)
            largest[last] = max(largest[last], q)


@compiled
def _roomiest(capacity: Floats, smallest: Ints, largest: Ints, stages: int, q: int) -> int:
    before, high, after, low = 0, -1, stages - 1, np.iinfo(np.int64).max
    for s in range(stages):
        if largest[s] < 0:
            continue
        if high < largest[s] < q:
            before, high = s, largest[s]
        if q < smallest[s] < low:
            after, low = s, smallest[s]
    best = before
    for s in range(before, after + 1):
        if capacity[s] > capacity[best]:
            best = s
    return best


@compiled
def _count_whole_layers(
    owner: Ints, performance: Floats, stages: int, layer_demand: Floats, split: Ints
) -> None:
    """Turn sub-layers into whole layers, smooth the borders and write cumulative counts."""
    layers = len(layer_demand)
    layer_owner = np.full(layers, UNOWNED, dtype=np.int64)
    owned = np.zeros(stages, dtype=np.int64)
    for layer in range(layers):
        held = np.zeros(stages, dtype=np.int64)
        for q in range(layer * SUB_LAYERS, (layer + 1) * SUB_LAYERS):
            held[owner[q]] += 1
            if held[owner[q]] * 2 > SUB_LAYERS:
                layer_owner[layer] = owner[q]
        if layer_owner[layer] != UNOWNED:
            owned[layer_owner[layer]] += 1
    left = np.empty(stages)
    for s in range(stages):
        first, end = _owned_range(layer_owner, s)
        used = 0.0
        for layer in range(first, end):
            used += layer_demand[layer]
        left[s] = performance[s] - used
    _smooth(layer_owner, owned, left, stages, layer_demand)
    split[0] = 0
    for s in range(stages):
        split[s + 1] = split[s] + owned[s]


@compiled
def _owned_range(layer_owner: Ints, s: int) -> tuple[int, int]:
    first, end = 0, 0
    for layer in range(len(layer_owner)):
        if layer_owner[layer] == s:
            if end == 0:
                first = layer
            end = layer + 1
    return first, end


@compiled
def _smooth(
    layer_owner: Ints, owned: Ints, left: Floats, stages: int, layer_demand: Floats
) -> None:
    if stages < 2:
        return
    for _ in range(3):
        to = int(np.argmax(left))
        before = left[to]
        source = to - 1 if to > 0 else to + 1
        if 0 < to < stages - 1 and left[to + 1] < left[to - 1]:
            source = to + 1
        if owned[source] <= 1:
            continue
        first, end = _owned_range(layer_owner, source)
        layer = end - 1 if source < to else first
        room, other = left[to] - layer_demand[layer], left[source] + layer_demand[layer]
        worst = max(room, other)
        for s in range(stages):
            if s not in (to, source):
                worst = max(worst, left[s])
        if worst > before:
            return
        left[to], left[source] = room, other
        layer_owner[layer] = to
        owned[source] -= 1
        owned[to] += 1
