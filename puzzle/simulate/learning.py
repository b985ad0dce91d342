"""Bytes of a training stage, moment by moment, as the pass lists order them.

Gradients live from a model's first backward pass until R of its update, which copies them into one
buffer of the main weights' precision (`puzzle/run/update.py`); that lives until U. How many
micro-batches are live comes from the pass lists (`puzzle.plan.live`).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from puzzle.inputs.layout import Layout
from puzzle.inputs.model import Llama, Role, tensors
from puzzle.inputs.precision import HALVES, Kinds
from puzzle.inputs.savings import NONE, Savings
from puzzle.inputs.workload import Workload
from puzzle.plan.live import live_bytes
from puzzle.plan.passes import ScheduleName
from puzzle.plan.schedules import pass_ratio
from puzzle.simulate.activations import Bytes, activations, logits, recomputed
from puzzle.simulate.held import Held, at_rest, held, shares_of


class Training(NamedTuple):
    """Bytes of training on the fullest rank, by whether the next generation shard is there."""

    passes: float
    update: float
    switched: float
    """While the critic alone is still trained: to this the next generation shard is added."""

    def peak(self, beside: float) -> float:
        """Return the largest moment with so many bytes of the next generation shard."""
        return max(self.passes, self.update, self.switched + beside)


def largest_tensor(model: Llama, role: Role, layout: Layout) -> float:
    """Return the elements of the largest slice."""
    return max(t.size / (layout.tensor if t.axis is not None else 1) for t in tensors(model, role))


class _Update(NamedTuple):
    """Bytes a weight of a model's update, and of the optimizer's temporaries."""

    summing: float
    """From R to N: the buffer of all gradients; a share's sums beside it."""
    stepping: float
    """From N to U."""
    stepped: float
    """At U: the buffer, or a share of it and the weights that all replicas give each other."""
    own: Bytes
    """AdamW's temporaries on one tensor after the other."""


def _update(kinds: Kinds, shares: int, largest: float, most: Bytes) -> _Update:
    m, w = kinds.main, kinds.weight
    own = 2 * m * np.minimum(largest, most / shares)
    if shares == 1:
        return _Update(m, m, m, own)
    share = 1 / shares
    return _Update(m * (1 + share), m * share, m * share + w * (1 + share), own)


def training(
    actor: Llama,
    critic: Llama,
    layout: Layout,
    work: Workload,
    schedule: ScheduleName,
    kinds: Kinds = HALVES,
    *,
    critic_learns: bool = True,
    savings: Savings = NONE,
) -> Training:
    """Return a training stage's memory; plays the fused schedule's pass list."""
    weights = held(actor, critic, layout, schedule, critic_learns=critic_learns)
    batches = work.local(layout.data) // work.micro_batch
    again, shares = savings.recompute, shares_of(layout, savings)
    a = activations(actor, layout, work, kinds, recompute=again)
    c = activations(critic, layout, work, kinds, recompute=again)
    c = (c[::-1] if schedule == "fused" else c) * critic_learns
    layer_a = recomputed(actor, layout, work, kinds) * again
    layer_c = recomputed(critic, layout, work, kinds) * again * critic_learns
    end = np.full(layout.pipeline, layer_a)
    end[-1] = max(layer_a, logits(actor, layout, work.micro_batch, work.length, kinds))
    sizes = largest_tensor(actor, "actor", layout), largest_tensor(critic, "critic", layout)
    most = np.maximum(weights.actor, weights.critic)
    update = _update(kinds, shares, max(sizes), most)
    rest, w = at_rest(weights, kinds, shares), kinds.weight
    if schedule == "fused":
        ratio = pass_ratio(actor, critic)
        live = live_bytes(schedule, layout.pipeline, batches, a, c, ratio)
        passes = w * (weights.actor + weights.critic) + live + np.maximum(end, layer_c)
        both = weights.actor + weights.critic  # both norms wait for the end, and both updates
        after = update.stepped * weights.critic + update.own
        updating = np.maximum(update.summing * both + w * most, update.stepped * both + update.own)
    else:
        more = (batches > layout.pipeline - np.arange(layout.pipeline)) | again
        of_critic = live_bytes("sequential", layout.pipeline, batches, 0 * a, c)
        alone = _with_gradients(w * weights.critic, of_critic + layer_c, c, more)
        if schedule == "sequential":
            before = live_bytes(schedule, layout.pipeline, batches, a, 0 * c)
            updating = _ends(update, w, weights.actor)
        else:
            before = _before(a, c, batches)
            updating = _between(update, w, weights, (a, c), batches, layer_c)
        passes = np.maximum(_with_gradients(w * weights.actor, before + end, a, more), alone)
        ends = _ends(update, w, weights.critic)
        updating, after = np.maximum(updating, ends), np.maximum(alone, ends)
    return Training(
        float((rest + passes).max()), float((rest + updating).max()), float((rest + after).max())
    )


def _with_gradients(gradients: Bytes, live: Bytes, one: Bytes, more: NDArray[np.bool_]) -> Bytes:
    """Return the most of what is live and the gradients of the same model.

    Both are there at once where a forward pass comes after a backward pass, `more`; else the first
    backward pass, which makes the gradients, leaves what `one` micro-batch kept.
    """
    return np.where(more, gradients + live, np.maximum(live, gradients + live - one))


def _ends(update: _Update, weight: int, held_by: Bytes) -> Bytes:
    """Return the larger of R and U of a model beside which nothing is live."""
    return np.maximum((update.summing + weight) * held_by, update.stepped * held_by + update.own)


def _before(a: Bytes, c: Bytes, batches: int) -> Bytes:
    """Return the most that is live in the merged stream while the actor still has passes.

    P - p follow each other in the stream, at least one of them the actor's.
    """
    ahead = len(a) - np.arange(len(a))
    found = np.zeros(len(a))
    for of_actor in (np.minimum(ahead, batches), np.maximum(ahead - batches, 1), np.ones(len(a))):
        some = np.minimum(of_actor, batches)
        found = np.maximum(found, some * a + np.minimum(ahead - some, batches) * c)
    return found


def _between(
    update: _Update,
    weight: int,
    weights: Held,
    live: tuple[Bytes, Bytes],
    batches: int,
    layer: float,
) -> Bytes:
    """Return the most of the actor's update in the merged stream, between passes of the critic.

    R comes after the actor's last backward pass, when P - p - 1 of the critic are live; then one
    more forward pass, N, a backward pass that makes the critic's gradients, and where there are
    more micro-batches another forward pass, before U.
    """
    a, c = live
    ahead = len(a) - np.arange(len(a))
    most = np.minimum(ahead, batches)
    then = np.where(batches > ahead, most, most - 1) * c
    return np.maximum.reduce(
        [
            (update.summing + weight) * weights.actor + np.minimum(ahead - 1, batches) * c,
            update.summing * weights.actor + most * c,
            update.stepping * weights.actor
            + weight * weights.critic
            + np.maximum(then, (most * c + layer) * (layer > 0)),
            update.stepped * weights.actor + weight * weights.critic + then + update.own,
        ]
    )
