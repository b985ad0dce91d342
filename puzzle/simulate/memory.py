"""Memory of a device in the two fullest moments of a PPO step, bytes.

Per trained parameter 16 bytes (half-precision weight and gradient, float32 main weight and two
moments), per frozen one 2 (specification section 2.3, as the logs show).
"""

from typing import NamedTuple

from puzzle.inputs.layout import Layout, layers_per_stage
from puzzle.inputs.model import Llama
from puzzle.inputs.workload import Workload
from puzzle.plan.fused import most_live
from puzzle.plan.slices import held_elements

TRAINED, FROZEN = 16, 2


class Memory(NamedTuple):
    """Bytes on the fullest device."""

    states: float
    """Weights, gradients and optimizer of all four models."""
    training: float
    """With the activations of training; the next generation shard beside the critic's."""
    generation: float
    """With the generation shard and the KV cache."""

    @property
    def peak(self) -> float:
        """The larger of the two moments."""
        return max(self.training, self.generation)


def states(actor: Llama, critic: Llama, layout: Layout, *, fused: bool = False) -> float:
    """Return the bytes of the four models' states on the fullest rank.

    `fused`: the critic's first stage is on the last rank.
    """
    last = layout.pipeline - 1
    return max(
        (TRAINED + FROZEN)
        * (
            held_elements(actor, "actor", layout, rank, 0)
            + held_elements(critic, "critic", layout, last - rank if fused else rank, 0)
        )
        for rank in range(layout.pipeline)
    )


def activations(model: Llama, layout: Layout, work: Workload) -> float:
    """Return the activations of the first stage's P micro-batches in flight, nothing recomputed.

    Korthikanti et al., MLSys 2023: s b h (10 + 24/t + 5 a s/(h t)) bytes a layer.
    """
    in_flight = min(layout.pipeline, work.local(layout.data) // work.micro_batch)
    layers = layers_per_stage(model.layers, layout.pipeline)[0]
    return in_flight * layers * _layer(model, layout, work)


def _layer(model: Llama, layout: Layout, work: Workload) -> float:
    s, b, h, t = work.length, work.micro_batch, model.hidden, layout.tensor
    return s * b * h * (10 + 24 / t + 5 * model.heads * s / (h * t))


def flying(
    actor: Llama, critic: Llama, layout: Layout, work: Workload, *, fused: bool = False
) -> float:
    """Return both models' activations on the fullest rank.

    A fused rank holds of each model at most what any fused order does on that stage
    (`plan.fused.most_live`): many of one where it holds few of the other.
    """
    if not fused:
        return activations(actor, layout, work) + activations(critic, layout, work)
    stages, batches = layout.pipeline, work.local(layout.data) // work.micro_batch

    def of(model: Llama, stage: int) -> float:
        layers = layers_per_stage(model.layers, stages)[stage]
        return min(batches, most_live(stages, stage)) * layers * _layer(model, layout, work)

    return max(of(actor, rank) + of(critic, stages - 1 - rank) for rank in range(stages))


def cache(model: Llama, layout: Layout, work: Workload) -> float:
    """Return the bytes of keys and values of all sequences of a replica (section 2.6)."""
    local = work.local(layout.data)
    layers = layers_per_stage(model.layers, layout.pipeline)[0]
    return 4.0 * local * work.length * layers * model.key_width / layout.tensor


def memory(
    actor: Llama,
    critic: Llama,
    training: Layout,
    generation: Layout,
    work: Workload,
    switch_bytes: float,
    *,
    fused: bool = False,
) -> Memory:
    """Return a device's memory; `switch_bytes` is what generation holds beside the states."""
    base = states(actor, critic, training, fused=fused)
    held = flying(actor, critic, training, work, fused=fused)
    logits = 6.0 * work.micro_batch * work.length * actor.vocabulary / training.tensor
    during = switch_bytes + cache(actor, generation, work)
    # On CUDA the switch goes beside the critic's last passes (puzzle/run/streams.py).
    beside = activations(critic, training, work) + switch_bytes
    return Memory(base, base + max(held + logits, beside), base + during)
