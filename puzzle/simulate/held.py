"""Bytes of weights, gradients and optimizers that a device holds of all four models.

A trained weight is held as the passes use it, in the halves as a float32 main weight too, and has
two moments of the main weight's precision; a frozen one is held as the passes use it. A sharded
optimizer holds its share of main weights and moments.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from puzzle.inputs.layout import Layout
from puzzle.inputs.model import Llama, Role
from puzzle.inputs.precision import HALVES, Kinds
from puzzle.inputs.savings import NONE, Savings
from puzzle.plan.passes import ScheduleName
from puzzle.plan.slices import held_elements
from puzzle.simulate.activations import Bytes


class Held(NamedTuple):
    """Weights by pipeline rank; in the fused schedule critic and reward model are turned."""

    actor: Bytes
    critic: Bytes
    """0 where there is none."""
    frozen: Bytes
    """Of reference and reward model."""


@lru_cache(maxsize=4096)
def _elements(model: Llama, role: Role, layout: Layout) -> tuple[int, ...]:
    slices = Layout(pipeline=layout.pipeline, tensor=layout.tensor)
    return tuple(held_elements(model, role, slices, p, 0) for p in range(layout.pipeline))


def held(
    actor: Llama,
    critic: Llama,
    layout: Layout,
    schedule: ScheduleName,
    *,
    critic_learns: bool = True,
) -> Held:
    """Return the weights that each rank of a pipeline holds."""
    a, c = (
        np.array(_elements(model, role, layout), dtype=float)
        for model, role in ((actor, "actor"), (critic, "critic"))
    )
    c = c[::-1] if schedule == "fused" else c
    return Held(a, c * critic_learns, a + c)


def at_rest(weights: Held, kinds: Kinds = HALVES, shares: int = 1) -> Bytes:
    """Return the models' bytes while none has gradients; the optimizer is cut into `shares`."""
    trained = kinds.weight + kinds.optimizer / shares
    return trained * (weights.actor + weights.critic) + kinds.weight * weights.frozen


def shares_of(layout: Layout, savings: Savings) -> int:
    """Return how many replicas share an optimizer."""
    return layout.data if savings.shard_optimizer else 1


def states(
    actor: Llama,
    critic: Llama,
    layout: Layout,
    kinds: Kinds = HALVES,
    schedule: ScheduleName = "merged",
    *,
    critic_learns: bool = True,
    savings: Savings = NONE,
) -> float:
    """Return the bytes of all models on the fullest rank, gradients included."""
    weights = held(actor, critic, layout, schedule, critic_learns=critic_learns)
    rest = at_rest(weights, kinds, shares_of(layout, savings))
    return float((rest + kinds.weight * (weights.actor + weights.critic)).max())
