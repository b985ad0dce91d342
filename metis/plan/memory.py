"""Memory of a split, and the original's repair of an overflowing one (Metis §3)."""

from collections.abc import Sequence

from metis.plan.stages import StageOption

ADJUST_SAFETY = 0.9
"""The original shrinks an overflowing stage a little more than needed."""

SMALLEST_DEMAND = 1e-3
"""MB that an empty stage counts as, so that it can be divided by."""

ENOUGH = 0.01
"""Performance still to be handed out below which the original stops."""

SPARE = 0.001
"""Spare performance below which a stage takes no more."""


def demand_and_capacity(
    option: StageOption, first: int, end: int, in_flight: int
) -> tuple[float, float]:
    """Return (demand, capacity) in MB of the stage's tightest device for a layer range."""
    demands = [
        (
            memory.static[first, end] + in_flight * memory.activations[first, end],
            memory.capacity,
        )
        for memory in option.memory
    ]
    return max(demands, key=lambda pair: pair[0] - pair[1])


def in_flight(stage: int, stages: int, batches: int) -> int:
    """Return the micro-batches whose activations a 1F1B stage holds at its peak."""
    return min(batches, stages - stage)


def slacks(options: Sequence[StageOption], split: Sequence[int], batches: int) -> list[float]:
    """Return capacity - demand of every stage, MB."""
    result = list[float]()
    for s, option in enumerate(options):
        demand, capacity = demand_and_capacity(
            option, split[s], split[s + 1], in_flight(s, len(options), batches)
        )
        result.append(capacity - demand)
    return result


def adjust(
    performance: Sequence[float], capacity: Sequence[float], demand: Sequence[float]
) -> list[float] | None:
    """Return performances with the overflowing stages' share moved to the roomy ones.

    None when the roomy stages cannot take it. The original's rule; its loop can spin for ever
    when every spare is tiny, here that counts as impossible.
    """
    kept, spare, need = list[float](), list[float](), 0.0
    for c, room, used in zip(performance, capacity, demand, strict=True):
        scaled = c * room / max(used, SMALLEST_DEMAND)
        if room > used:
            kept.append(c)
            spare.append(scaled - c)
        else:
            kept.append(scaled * ADJUST_SAFETY)
            spare.append(0.0)
            need += c - scaled * ADJUST_SAFETY
    total_spare = 0.0
    for value in spare:
        total_spare += value
    if total_spare < need:
        return None
    added = [0.0] * len(kept)
    while need > ENOUGH:
        takers = [s for s in range(len(kept)) if spare[s] > SPARE]
        if not takers:
            return None
        total = 0.0
        for s in takers:
            total += performance[s]
        for s in takers:
            taken = min(spare[s], need * (performance[s] / total))
            added[s] += taken
            spare[s] -= taken
            need -= taken
    return [c + extra for c, extra in zip(kept, added, strict=True)]
