"""The compiled twin of `walk.py`: chains over many layouts on flat arrays.

Same arithmetic in the same order as the readable engine; `tests/metis/test_twins.py` holds the
two equal. Runs without the interpreter lock, so layouts are shared out over threads.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from metis.plan.kernel_balance import (
    BYTES_PER_MS,
    adjust,
    min_max_split,
    sub_layer_split,
    tightest,
)
from metis.plan.tables import Floats, Ints, Tables
from metis.plan.walk import MAX_ATTEMPTS

NO_STATE, MEMORY_STATE, FIRST_STATE = 0, 1, 2


class Rules(NamedTuple):
    """The switches and the policy that the walk itself looks at."""

    stratified: bool
    lossy_balancer: bool
    empty_stages: bool
    first_success_ends_chain: bool
    sends_every_batch: bool


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
    uncostable: int


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def _slacks(t: Tables, options: Ints, stages: int, batches: int, split: Ints, state: Floats) -> bool:
    fits = True
    for s in range(stages):
        demand, capacity = tightest(
            t, options[s], split[s], split[s + 1], min(batches, stages - s)
        )
        state[s] = capacity - demand
        fits &= state[s] >= 0
    return fits


@njit(cache=True, nogil=True)
def _has_empty(split: Ints, stages: int) -> bool:
    for s in range(stages):
        if split[s] == split[s + 1]:
            return True
    return False


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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
        if fits and (rules.empty_stages or not _has_empty(split, stages)):
            return attempt, failed
        if attempt == 1:
            first_state[:stages] = memory_state[:stages]
        failed += 1
        if not adjust(performance, capacity, demand, stages, spare):
            break
    return -1, failed


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def walk_layouts(
    t: Tables, rules: Rules, starts: Ints, slots: Ints, phantom: Ints, begin: int, end: int
) -> Found:
    """Walk all chains of layouts begin..end-1 (layout i: slots[starts[i]:starts[i + 1]])."""
    longest = 0
    for i in range(begin, end):
        longest = max(longest, starts[i + 1] - starts[i])
    tps, options = np.zeros(longest, dtype=np.int64), np.zeros(longest, dtype=np.int64)
    split = np.zeros(longest + 1, dtype=np.int64)
    trial = np.zeros(longest + 1, dtype=np.int64)
    work = np.zeros((4, longest))
    memory_state, first_state = np.zeros(longest), np.zeros(longest)

    room = 1024
    costs = np.empty(room, dtype=np.float64)
    found = np.empty((6, room), dtype=np.int64)
    count, total_steps, uncostable = 0, 0, 0

    for i in range(begin, end):
        stages = starts[i + 1] - starts[i]
        layout = slots[starts[i] : starts[i + 1]]
        counted = 1 if phantom[i] else stages
        for b in range(len(t.batches)):
            batches = t.batches[b]
            tps[:stages] = 0
            kind, steps, ordinal = NO_STATE, 0, 0
            moved = False
            while True:
                if moved:
                    steps += 1
                    state = first_state if kind == FIRST_STATE else memory_state
                    stage = _stage_to_move(t, layout, tps, stages, state, kind)
                    if stage < 0:
                        break
                    tps[stage] += 1
                moved = True
                valid = True
                for s in range(stages):
                    options[s] = t.option_of[layout[s], tps[s], b]
                    if options[s] < 0:
                        valid = False
                        break
                if not valid:
                    continue
                if rules.lossy_balancer:
                    attempt, failed = _partition_as_original(
                        t, rules, options, stages, batches, split, work, memory_state, first_state
                    )
                else:
                    attempt, failed = _partition_exactly(
                        t, rules, options, stages, batches, split, trial, memory_state, first_state
                    )
                steps += failed
                if rules.stratified and attempt != 1:
                    kind = FIRST_STATE
                else:
                    kind = MEMORY_STATE if attempt > 0 else NO_STATE
                if attempt < 0:
                    continue
                total_steps += steps
                steps = 0
                value = plan_cost(t, options, split, counted, batches, rules.sends_every_batch)
                if np.isnan(value):
                    uncostable += 1
                else:
                    if count == room:
                        room *= 2
                        grown_costs = np.empty(room, dtype=np.float64)
                        grown_costs[:count] = costs
                        costs = grown_costs
                        grown = np.empty((6, room), dtype=np.int64)
                        grown[:, :count] = found
                        found = grown
                    costs[count] = value
                    found[0, count] = i
                    found[1, count] = b
                    found[2, count] = ordinal
                    found[3, count] = attempt
                    found[4, count] = split[stages]
                    empty = 0
                    for s in range(stages):
                        empty += split[s] == split[s + 1]
                    found[5, count] = empty
                    count += 1
                ordinal += 1
                if rules.first_success_ends_chain and attempt == 1:
                    break
    return Found(
        costs[:count].copy(),
        found[0, :count].copy(),
        found[1, :count].copy(),
        found[2, :count].copy(),
        found[3, :count].copy(),
        found[4, :count].copy(),
        found[5, :count].copy(),
        total_steps,
        uncostable,
    )
