"""Which generation place each rank takes: the mappings of a switch."""

from collections.abc import Callable
from math import gcd
from typing import Literal

import numpy as np

from common.errors import InputError
from puzzle.inputs.layout import Layout, Place
from puzzle.inputs.model import Llama
from puzzle.plan.assign import best_assignment
from puzzle.plan.slices import held

MappingName = Literal["original", "interleaved", "overlap"]

Assignment = tuple[int, ...]
"""By rank, the number (in Megatron's order) of the generation place that it takes."""


def original(train: Layout, generate: Layout, model: Llama) -> Assignment:
    """Return rank order in both layouts, as the original does."""
    return tuple(range(train.world))


def interleaved(train: Layout, generate: Layout, model: Llama) -> Assignment:
    """Return the place (p div k, d, k t + p mod k) for the rank at (p, d, t).

    Every rank then holds 1/k of its new shard already, for any T and D (spec section 2.9). Raises
    InputError unless P = k P', T' = k T and D' = D.
    """
    k, rest = divmod(train.pipeline, generate.pipeline)
    if rest or generate.tensor != k * train.tensor or generate.data != train.data:
        raise InputError(
            f"mapping 'interleaved' needs P = k P', T' = k T and D' = D, not {train} to {generate};"
            " use 'overlap'"
        )
    return tuple(generate.rank(Place(p // k, d, k * t + p % k)) for p, d, t in train.places())


def overlap(train: Layout, generate: Layout, model: Llama) -> Assignment:
    """Return the assignment that leaves most weights where they are: the lower bound of bytes."""
    resident = np.array([row_of_overlaps(train, generate, model, r) for r in range(train.world)])
    # Among equals the interleaved or rank order, which keep tensor groups close together. The
    # preferences of all ranks together are less than one element, so they never cost a byte;
    # powers of two add up without rounding.
    favoured = _favoured(train, generate, model)
    resident[np.arange(train.world), favoured] += 0.5 ** (train.world.bit_length() + 1)
    return tuple(best_assignment(resident))


def row_of_overlaps(train: Layout, generate: Layout, model: Llama, rank: int) -> list[float]:
    """Return the elements that a rank holds already of every generation place."""
    place = train.place(rank)
    mine = {
        part.tensor.name: part for part in held(model, "actor", train, place.stage, place.slice)
    }
    counts: dict[tuple[int, int], float] = {}
    for stage in range(generate.pipeline):
        for number in range(generate.tensor):
            total = 0
            for part in held(model, "actor", generate, stage, number):
                other = mine.get(part.tensor.name)
                both = other.overlap(part) if other else None
                total += both.size if both else 0
            counts[stage, number] = float(total)
    return [counts[stage, part] for stage, _, part in generate.places()]


def _favoured(train: Layout, generate: Layout, model: Llama) -> Assignment:
    try:
        return interleaved(train, generate, model)
    except InputError:
        return original(train, generate, model)


MAPPINGS: dict[str, Callable[[Layout, Layout, Llama], Assignment]] = {
    "original": original,
    "interleaved": interleaved,
    "overlap": overlap,
}


def source_replica(train: Layout, generate: Layout, replica: int) -> int:
    """Return the training replica that a generation replica's weights come from: d' div R.

    Where replicas become fewer or the ratio is no integer, the one at the same part of the range.
    """
    shared = gcd(train.data, generate.data)
    ratio = generate.data // shared, train.data // shared
    return replica * ratio[1] // ratio[0] if ratio[0] > 1 else replica * ratio[1]
