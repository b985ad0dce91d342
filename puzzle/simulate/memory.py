"""Memory of a device in the two fullest moments of a PPO step, bytes.

Per trained parameter 16 bytes (half-precision weight and gradient, float32 main weight and two
moments), per frozen one 2 (specification section 2.3, as the logs show).
"""

from typing import NamedTuple

from puzzle.inputs.layout import Layout, layers_per_stage
from puzzle.inputs.model import Llama, Role
from puzzle.inputs.workload import Workload
from puzzle.plan.slices import held_elements

TRAINED, FROZEN = 16, 2


class Memory(NamedTuple):
    """Bytes on the fullest device."""

    states: float
    """Weights, gradients and optimizer of all four models."""
    training: float
    """With the activations of training."""
    generation: float
    """With the generation shard and the KV cache."""

    @property
    def peak(self) -> float:
        """The larger of the two moments."""
        return max(self.training, self.generation)


def states(actor: Llama, critic: Llama, layout: Layout) -> float:
    """Return the bytes of the four models' states on the fullest stage."""
    roles: tuple[tuple[Llama, Role], ...] = ((actor, "actor"), (critic, "critic"))
    return max(
        (TRAINED + FROZEN)
        * sum(held_elements(model, role, layout, stage, 0) for model, role in roles)
        for stage in range(layout.pipeline)
    )


def activations(model: Llama, layout: Layout, work: Workload) -> float:
    """Return the activations of the first stage's P micro-batches in flight, nothing recomputed.

    Korthikanti et al., MLSys 2023: s b h (10 + 24/t + 5 a s/(h t)) bytes a layer.
    """
    s, b, h, t = work.length, work.micro_batch, model.hidden, layout.tensor
    layer = s * b * h * (10 + 24 / t + 5 * model.heads * s / (h * t))
    in_flight = min(layout.pipeline, work.local(layout.data) // b)
    return in_flight * layers_per_stage(model.layers, layout.pipeline)[0] * layer


def cache(model: Llama, layout: Layout, work: Workload) -> float:
    """Return the bytes of keys and values of all sequences of a replica (section 2.6)."""
    local = work.local(layout.data)
    layers = layers_per_stage(model.layers, layout.pipeline)[0]
    return 4.0 * local * work.length * layers * model.hidden / layout.tensor


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
    """Return a device's memory; `switch_bytes` is what generation holds beside the states.

    `fused` may hold twice the micro-batches of 1F1B.
    """
    base = states(actor, critic, training)
    flying = (1 + fused) * (
        activations(actor, training, work) + activations(critic, training, work)
    )
    logits = 6.0 * work.micro_batch * work.length * actor.vocabulary / training.tensor
    during = switch_bytes + cache(actor, generation, work)
    return Memory(base, base + flying + logits, base + during)
