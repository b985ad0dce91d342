"""Which generation place each rank takes: the mappings of a switch.

`node` is the devices of a node, 0 where all ranks are on one.
"""

from collections.abc import Callable
from math import gcd
from typing import Literal

import numpy as np

from common.errors import InputError
from puzzle.inputs.layout import Layout, Place
from puzzle.inputs.model import Llama
from puzzle.plan.nodes import Weights, node_assignment, sent_between
from puzzle.plan.shares import shares

MappingName = Literal["original", "interleaved", "overlap"]

Assignment = tuple[int, ...]
"""By rank, the number (in Megatron's order) of the generation place that it takes."""


def original(train: Layout, generate: Layout, model: Llama, node: int = 0) -> Assignment:
    """Return rank order in both layouts, as the original does."""
    return tuple(range(train.world))


def interleaved(train: Layout, generate: Layout, model: Llama, node: int = 0) -> Assignment:
    """Return the place (p div k, d, k t + p mod k) for the rank at (p, d, t).

    Every rank then holds 1/k of its new shard already, for any T and D (spec section 2.9). Raises
    InputError unless P = k P', T' = k T and D' = D.
    """
    if not possible("interleaved", train, generate):
        raise InputError(
            f"mapping 'interleaved' needs P = k P', T' = k T and D' = D, not {train} to {generate};"
            " use 'overlap'"
        )
    k = train.pipeline // generate.pipeline
    return tuple(generate.rank(Place(p // k, d, k * t + p % k)) for p, d, t in train.places())


def overlap(train: Layout, generate: Layout, model: Llama, node: int = 0) -> Assignment:
    """Return the assignment that leaves most weights where they are, tensor groups inside a node.

    Among those with as many, the one with the least bytes between nodes, which are never more than
    rank order's: where they would be, they count more, until rank order itself is left. Where no
    tensor group can lie inside a node (T' does not divide it), nodes make no difference.
    """
    found = shares(model, "actor", train, generate)
    if not _on_nodes(train, generate, node):
        return node_assignment(train, generate, found, train.world, Weights(1.0, 0.0))
    in_order = tuple(range(train.world))
    most = sent_between(train, generate, found, node, in_order)
    # Powers of two times whole numbers add up without rounding.
    unit = float(np.gcd.reduce([*found.cut.flat, *found.norms.flat]))
    lexical = 2.0 ** min(30, int(most / unit).bit_length() + 1)
    for stay, between in ((lexical, 1.0), (1.0, 1.0), (1.0, lexical)):
        weights = Weights(stay / unit, between / unit)
        assignment = node_assignment(train, generate, found, node, weights)
        if sent_between(train, generate, found, node, assignment) <= most:
            return assignment
    return in_order


def _on_nodes(train: Layout, generate: Layout, node: int) -> bool:
    return 0 < node < train.world and node % generate.tensor == 0


def possible(mapping: MappingName, train: Layout, generate: Layout) -> bool:
    """Say whether a mapping is defined from one layout to the other."""
    k, rest = divmod(train.pipeline, generate.pipeline)
    nested = not rest and generate.tensor == k * train.tensor and generate.data == train.data
    return nested or mapping != "interleaved"


MAPPINGS: dict[str, Callable[[Layout, Layout, Llama, int], Assignment]] = {
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
