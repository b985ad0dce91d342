"""Where each rank of a 1F1B pipeline does its S and T: after B or after F.

The passes S and T of a micro-batch run on all ranks at about the same time; a rank's own clock is
shifted by its distance from the last. The artifact's rank states, from the last rank upward.
"""

from itertools import pairwise

import msgspec

from vocab_parallel.plan.costs import Costs


class RankState(msgspec.Struct, frozen=True):
    """`after_backward`: S and T come after B (the artifact's BSF), else after F (BFS).

    `offset` is the rank's clock relative to the last rank's, in the costs' unit. `warm_up_slots`
    counts the S/T slots that the rank runs before its first backward pass, beyond the first.
    """

    after_backward: bool
    offset: float
    warm_up_slots: int


def rank_states(ranks: int, costs: Costs) -> tuple[RankState, ...]:
    """Return the state of every rank, first rank first."""
    order = [(True, 0.0)]
    while len(order) < ranks:
        offset = order[-1][1]
        if offset - costs.forward >= -costs.backward:
            order.append((True, offset - costs.forward))
        else:
            order.append((False, offset))
            order.append((True, offset + costs.backward - costs.forward))
    order = order[:ranks]
    slots = [0]
    for (below, _), (above, _) in pairwise(order):
        slots.append(slots[-1] + (below or not above))
    states = [RankState(*state, count) for state, count in zip(order, slots, strict=True)]
    return tuple(reversed(states))
