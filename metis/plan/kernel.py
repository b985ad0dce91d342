"""The compiled twin of `walk.py`: chains over many layouts on flat arrays.

Same arithmetic in the same order as the readable engine; `tests/metis/test_search_properties.py`
holds the two equal. Runs without the interpreter lock, so layouts are shared out over threads.
"""

# numpy's stubs take elements of arrays for arrays; numba checks the types when it compiles.
# pyright: basic, reportArgumentType=false, reportReturnType=false

from typing import NamedTuple

import numpy as np

from common.kernels import compiled
from metis.plan.kernel_balance import (
    BYTES_PER_MS,
    adjust,
    min_max_split,
    sub_layer_split,
    tightest,
)
from metis.plan.rules import Rules
from metis.plan.tables import ABSENT, Floats, Ints, Tables
from metis.plan.walk import MAX_ATTEMPTS

NO_STATE, MEMORY_STATE, FIRST_STATE = 0, 1, 2

STOPPED = -1
"""Steps of a search that ended where the original ends with a KeyError."""

CHOSEN, PASSED_OVER, STOP = 0, 1, 2


class Found(NamedTuple):
    """Every plan that fits and can be costed, in walking order, and the totals."""

    cost: Floats
    layout: Ints
    batch: Ints
    ordinal: Ints
    """Number of the survivor inside its chain, uncostable ones counted."""
    attempts: Ints
    end_layer: Ints
    """Layers held; fewer than the model's where some were lost."""
    empty: Ints
    """Number of empty stages."""
    steps: int
    """STOPPED if a chain came to a vector whose profile is absent."""
    uncostable: int


@compiled
def _stage_to_move(t: Tables, slots: Ints, tps: Ints, stages: int, state: Floats, kind: int) -> int:
    best, best_key = -1, np.inf
    for s in range(stages):
        dp = t.size[slots[s]] >> tps[s]
        if dp <= 1 or dp % 2 != 0:
            continue
        key = 1 / dp if kind == NO_STATE else state[s]
        if key < best_key:
            best, best_key = s, key
    return best


@compiled
def _slacks(
    t: Tables, options: Ints, stages: int, batches: int, split: Ints, state: Floats
) -> bool:
    fits = True
    for s in range(stages):
        demand, capacity = tightest(t, options[s], split[s], split[s + 1], min(batches, stages - s))
        state[s] = capacity - demand
        fits &= state[s] >= 0
    return fits


@compiled
def _empty_stages(split: Ints, stages: int) -> int:
    empty = 0
    for s in range(stages):
        empty += split[s] == split[s + 1]
    return empty


@compiled
def _partition_exactly(
    t: Tables,
    rules: Rules,
    options: Ints,
    stages: int,
    batches: int,
    split: Ints,
    trial: Ints,
    memory_state: Floats,
    first_state: Floats,
) -> tuple[int, int]:
    """Return (attempt that fitted or -1, failed checks)."""
    min_max_split(t, options, stages, batches, False, rules.empty_stages, split, trial)
    if _slacks(t, options, stages, batches, split, memory_state):
        return 1, 0
    first_state[:stages] = memory_state[:stages]
    if min_max_split(t, options, stages, batches, True, rules.empty_stages, split, trial):
        _slacks(t, options, stages, batches, split, memory_state)
        return 2, 1
    return -1, 2


@compiled
def _partition_as_original(
    t: Tables,
    rules: Rules,
    options: Ints,
    stages: int,
    batches: int,
    split: Ints,
    work: Floats,
    memory_state: Floats,
    first_state: Floats,
) -> tuple[int, int]:
    """Return (attempt that fitted or -1, failed checks). `work` is (4, stages)."""
    performance, capacity, demand, spare = work[0], work[1], work[2], work[3]
    total = 0.0
    for s in range(stages):
        total += t.performance[options[s]]
    for s in range(stages):
        performance[s] = t.performance[options[s]] / total
    failed = 0
    for attempt in range(1, MAX_ATTEMPTS + 1):
        sub_layer_split(performance, stages, t.layer_demand, split)
        fits = True
        for s in range(stages):
            demand[s], capacity[s] = tightest(
                t, options[s], split[s], split[s + 1], min(batches, stages - s)
            )
            memory_state[s] = capacity[s] - demand[s]
            fits &= memory_state[s] >= 0
        if fits and (rules.empty_stages or _empty_stages(split, stages) == 0):
            return attempt, failed
        if attempt == 1:
            first_state[:stages] = memory_state[:stages]
        failed += 1
        if not adjust(performance, capacity, demand, stages, spare):
            break
    return -1, failed


@compiled
def plan_cost(
    t: Tables, options: Ints, split: Ints, counted: int, batches: int, sends_every_batch: bool
) -> float:
    """Return the cost of the first `counted` stages, ms; NaN if the original cannot cost it."""
    layers = t.ranges.shape[1] - 1
    slowest, fill, sent, update, allreduce = 0.0, 0.0, 0.0, -np.inf, -np.inf
    slowest_send = 0.0
    for s in range(counted):
        o, first, end = options[s], split[s], split[s + 1]
        if not t.costable[o]:
            return np.nan
        execution = t.ranges[t.time[o], first, end]
        slowest = max(slowest, execution)
        fill += execution
        update = max(update, t.update[o] * ((end - first) / layers))
        allreduce = max(allreduce, t.allreduce[o] * t.ranges[t.parameters[o], first, end])
        if s + 1 < counted:
            n = options[s + 1]
            amount = t.send_before_head[o] if end == layers - 1 else t.send_hidden[o]
            if t.first_node[o] == t.last_node[n]:
                bandwidth = min(t.intra[o], t.intra[n])
            else:
                bandwidth = min(t.inter[o], t.inter[n])
            send = amount / (bandwidth * BYTES_PER_MS)
            sent += send
            slowest_send = max(slowest_send, send)
    if sends_every_batch:
        slowest = max(slowest, slowest_send)
    return (
        (batches - 1) * slowest
        + fill
        + batches * t.sync[options[counted - 1]]
        + update
        + allreduce
        + sent
        + batches * t.batch_generator[options[0]]
    )


class Work(NamedTuple):
    """Scratch arrays of one thread, long enough for its longest layout."""

    tps: Ints
    options: Ints
    split: Ints
    trial: Ints
    rows: Floats
    memory_state: Floats
    first_state: Floats


@compiled
def _scratch(stages: int) -> Work:
    return Work(
        np.zeros(stages, dtype=np.int64),
        np.zeros(stages, dtype=np.int64),
        np.zeros(stages + 1, dtype=np.int64),
        np.zeros(stages + 1, dtype=np.int64),
        np.zeros((4, stages)),
        np.zeros(stages),
        np.zeros(stages),
    )


@compiled
def _choose_options(t: Tables, layout: Ints, b: int, work: Work) -> int:
    """Look up every stage's option; an invalid strategy outweighs an absent profile."""
    outcome = CHOSEN
    for s in range(len(layout)):
        work.options[s] = t.option_of[layout[s], work.tps[s], b]
        if work.options[s] == ABSENT:
            outcome = STOP
        elif work.options[s] < 0:
            return PASSED_OVER
    return outcome


@compiled
def _partition(t: Tables, rules: Rules, stages: int, batches: int, w: Work) -> tuple[int, int]:
    if rules.lossy_balancer:
        return _partition_as_original(
            t, rules, w.options, stages, batches, w.split, w.rows, w.memory_state, w.first_state
        )
    return _partition_exactly(
        t, rules, w.options, stages, batches, w.split, w.trial, w.memory_state, w.first_state
    )


@compiled
def _state_kind(rules: Rules, attempt: int) -> int:
    """Return which slacks the next move looks at."""
    if rules.stratified and attempt != 1:
        return FIRST_STATE
    return MEMORY_STATE if attempt > 0 else NO_STATE


@compiled
def _move(t: Tables, layout: Ints, kind: int, w: Work) -> bool:
    """Turn one stage's (dp, tp) into (dp / 2, 2 tp); False if none can."""
    state = w.first_state if kind == FIRST_STATE else w.memory_state
    stage = _stage_to_move(t, layout, w.tps, len(layout), state, kind)
    if stage < 0:
        return False
    w.tps[stage] += 1
    return True


@compiled
def _walk_chain(
    t: Tables,
    rules: Rules,
    layout: Ints,
    b: int,
    phantom: bool,
    w: Work,
    chain_cost: Floats,
    chain_facts: Ints,
) -> tuple[int, int]:
    """Walk one chain; return (survivors, steps).

    Survivor k's cost is chain_cost[k] (NaN or inf: cannot be costed) and chain_facts[:, k] its
    attempts, last layer boundary and number of empty stages. Steps may be STOPPED.
    """
    stages, batches = len(layout), t.batches[b]
    w.tps[:stages] = 0
    kind, steps, total_steps, survivors = NO_STATE, 0, 0, 0
    while True:
        chosen = _choose_options(t, layout, b, w)
        if chosen == STOP:
            return survivors, STOPPED
        if chosen == CHOSEN:
            attempt, failed = _partition(t, rules, stages, batches, w)
            steps += failed
            kind = _state_kind(rules, attempt)
            if attempt > 0:
                counted = 1 if phantom else stages
                chain_cost[survivors] = plan_cost(
                    t, w.options, w.split, counted, batches, rules.sends_every_batch
                )
                chain_facts[0, survivors] = attempt
                chain_facts[1, survivors] = w.split[stages]
                chain_facts[2, survivors] = _empty_stages(w.split, stages)
                survivors += 1
                total_steps += steps
                steps = 0
                if rules.first_success_ends_chain and attempt == 1:
                    return survivors, total_steps
        steps += 1
        if not _move(t, layout, kind, w):
            return survivors, total_steps


@compiled
def _longest_chain(t: Tables, starts: Ints, slots: Ints, begin: int, end: int) -> tuple[int, int]:
    """Return the most stages of a layout and the most vectors that a chain can have."""
    most_stages, most_vectors = 0, 0
    for i in range(begin, end):
        vectors = 1
        for s in range(starts[i], starts[i + 1]):
            vectors += int(np.log2(t.size[slots[s]])) + 1
        most_stages = max(most_stages, starts[i + 1] - starts[i])
        most_vectors = max(most_vectors, vectors)
    return most_stages, most_vectors


@compiled
def _found(costs: Floats, facts: Ints, count: int, steps: int, uncostable: int) -> Found:
    rows = facts[:, :count].copy()
    return Found(
        costs[:count].copy(),
        rows[0],
        rows[1],
        rows[2],
        rows[3],
        rows[4],
        rows[5],
        steps,
        uncostable,
    )


@compiled
def walk_layouts(
    t: Tables,
    rules: Rules,
    starts: Ints,
    slots: Ints,
    phantom: Ints,
    layouts: tuple[int, int],
    batch_range: tuple[int, int],
) -> Found:
    """Walk all chains of a range of layouts (layout i: slots[starts[i]:starts[i + 1]])."""
    begin, end = layouts
    stages, vectors = _longest_chain(t, starts, slots, begin, end)
    work = _scratch(stages)
    chain_cost, chain_facts = np.empty(vectors), np.empty((3, vectors), dtype=np.int64)
    room, count, total_steps, uncostable = 1024, 0, 0, 0
    costs, found = np.empty(room), np.empty((6, room), dtype=np.int64)
    for i in range(begin, end):
        layout = slots[starts[i] : starts[i + 1]]
        for b in range(batch_range[0], batch_range[1]):
            survivors, steps = _walk_chain(
                t, rules, layout, b, phantom[i] != 0, work, chain_cost, chain_facts
            )
            if steps == STOPPED:
                return _found(costs, found, 0, STOPPED, 0)
            total_steps += steps
            while count + survivors > room:
                costs = np.concatenate((costs, np.empty(room)))
                found = np.concatenate((found, np.empty((6, room), dtype=np.int64)), axis=1)
                room *= 2
            for k in range(survivors):
                if not np.isfinite(chain_cost[k]):
                    uncostable += 1
                    continue
                costs[count] = chain_cost[k]
                found[0, count], found[1, count], found[2, count] = i, b, k
                found[3:, count] = chain_facts[:, k]
                count += 1
    return _found(costs, found, count, total_steps, uncostable)
