"""Memory of a device in the fullest moments of a PPO step as this package's runtime uses it.

What the models hold is in `held`, what passes keep in `activations`, training in `learning`. All in
bytes.
"""

from typing import NamedTuple

from puzzle.inputs.layout import Layout
from puzzle.inputs.model import Llama
from puzzle.inputs.precision import HALVES, Kinds
from puzzle.inputs.savings import NONE, Savings
from puzzle.inputs.workload import Workload
from puzzle.plan.passes import ScheduleName
from puzzle.simulate.activations import cache, logits, passing
from puzzle.simulate.held import at_rest, held, shares_of, states
from puzzle.simulate.learning import training


class Memory(NamedTuple):
    """Bytes on the fullest device."""

    states: float
    """Weights, gradients and optimizer of all four models."""
    training: float
    """With the activations of training; the next generation shard beside the critic's."""
    update: float
    """With a model's whole gradient beside what is left of the other's training."""
    inference: float
    """With a micro-batch that is scored; no gradients."""
    generation: float
    """With the generation shard, the KV cache and a part of the prompts; no gradients."""

    @property
    def peak(self) -> float:
        """The largest of these moments."""
        return max(self.training, self.update, self.inference, self.generation)


def scoring(actor: Llama, layout: Layout, rows: int, length: int, kinds: Kinds = HALVES) -> float:
    """Return what scoring a micro-batch of `rows` holds beside the models."""
    return logits(actor, layout, rows, length, kinds) + passing(actor, layout, rows, length, kinds)


def generating(actor: Llama, layout: Layout, work: Workload, kinds: Kinds = HALVES) -> float:
    """Return what generation holds beside the models and the generation shard."""
    rows = work.prefill_micro_batch
    drawn = logits(actor, layout, work.decode_micro_batch, 1, kinds) * layout.tensor
    return (
        cache(actor, layout, work, kinds) + passing(actor, layout, rows, work.prompt, kinds) + drawn
    )


def memory(
    actor: Llama,
    critic: Llama,
    layouts: tuple[Layout, Layout],
    work: Workload,
    beside: float,
    switching: float,
    schedule: ScheduleName,
    kinds: Kinds = HALVES,
    *,
    critic_learns: bool = True,
    savings: Savings = NONE,
) -> Memory:
    """Return a device's memory in the (training, generation) layouts.

    `beside` is the generation shard that is held beside the states, `switching` what is while it is
    made.
    """
    train, generate = layouts
    weights = held(actor, critic, train, schedule, critic_learns=critic_learns)
    rest = float(at_rest(weights, kinds, shares_of(train, savings)).max())
    rows = work.scored(work.local(train.data))
    learning = training(
        actor, critic, train, work, schedule, kinds, critic_learns=critic_learns, savings=savings
    )
    return Memory(
        states=states(
            actor, critic, train, kinds, schedule, critic_learns=critic_learns, savings=savings
        ),
        training=max(learning.passes, learning.switched + max(beside, switching)),
        update=learning.update,
        inference=rest + scoring(actor, train, rows, work.length, kinds),
        generation=rest + max(switching, beside + generating(actor, generate, work, kinds)),
    )
