"""Stage times of a PPO step in closed form (specification section 7).

Times are seconds. Beyond the specification's form: an optimizer step grows with the parameters a
device holds, and a full decode ring is slower (`Constants.full_ring`).
"""

from typing import NamedTuple

from puzzle.inputs.cluster import GB
from puzzle.inputs.layout import Layout, layers_per_stage
from puzzle.inputs.model import Llama, layer_weights
from puzzle.inputs.workload import Workload
from puzzle.simulate.rates import Rates, stages_cross


class PassTimes(NamedTuple):
    """Forward and backward time of one micro-batch by stage."""

    forward: tuple[float, ...]
    backward: tuple[float, ...]


def pass_times(
    model: Llama, layout: Layout, batch: int, length: int, on: Rates, *, head: bool, train: bool
) -> PassTimes:
    """Return a micro-batch's times; `batch` sequences, `head`: with a language-model head.

    Where layers are recomputed, the backward pass has their forward pass once more in it.
    """
    tokens, T, h, width = batch * length, layout.tensor, model.hidden, on.kinds.weight
    launch = on.c.launch_train_s if train else on.c.launch_infer_s
    reduce = 0.0
    if T > 1:
        ring = width * tokens * h * 2 * (T - 1) / T / (on.c.allreduce_gbps * GB)
        reduce = 2 * (ring + on.c.allreduce_latency_s)
    crossings = on.crossings(layout)
    forward: list[float] = []
    backward: list[float] = []
    counts = layers_per_stage(model.layers, layout.pipeline)
    for stage, n in enumerate(counts):
        flops = (
            n * (2 * layer_weights(model) * tokens + 4 * tokens * length * model.query_width) / T
        )
        rate = on.c.peak_tflops * 1e12 * on.c.efficiency
        again = flops / rate + n * (launch + reduce) if train and on.savings.recompute else 0.0
        last = head and stage == len(counts) - 1
        if last:
            flops += 2 * model.vocabulary * h * tokens / T
        computing = flops / rate + n * launch
        loss = on.c.loss_s if last and train else 0.0
        to, fro = (
            tokens * h * width / on.hop(crosses) + on.c.p2p_latency_s
            for crosses in stages_cross(crossings, stage)
        )
        forward.append(computing + n * reduce + to + loss)
        backward.append(on.c.backward_factor * computing + n * reduce + again + fro)
    return PassTimes(tuple(forward), tuple(backward))


def update_time(model: Llama, layout: Layout, on: Rates) -> float:
    """Return the time of summing gradients over replicas and the optimizer step of one device.

    A sharded optimizer has the same: it moves no more, a sum to its owner and a weight from it, and
    steps fewer parameters, but nobody has measured by how much it is shorter, so no gain is told.
    """
    held = model.layers * layer_weights(model) / (layout.pipeline * layout.tensor)
    reduce = 0.0
    if layout.data > 1:
        rate = on.hop(on.replicas_cross(layout))
        reduce = 2 * (layout.data - 1) / layout.data * held * on.summed / rate
    return on.c.update_s + on.c.update_s_per_billion * held / 1e9 + reduce


def training_time(
    actor: Llama,
    critic: Llama,
    layout: Layout,
    work: Workload,
    on: Rates,
    *,
    merged: bool,
    steps_critic: bool = True,
) -> float:
    """Return the time of the training stage.

    `steps_critic=False` leaves out the critic's update in the merged schedule, as released.
    """
    m = work.local(layout.data) // work.micro_batch
    a, b = (
        pass_times(model, layout, work.micro_batch, work.length, on, head=head, train=True)
        for model, head in ((actor, True), (critic, False))
    )
    both = [[f + g for f, g in zip(*times, strict=True)] for times in (a, b)]
    updates = update_time(actor, layout, on) + update_time(critic, layout, on)
    if not on.critic_learns:
        return m * max(both[0]) + sum(both[0][:-1]) + update_time(actor, layout, on)
    if not merged:
        return sum(m * max(t) + sum(t[:-1]) for t in both) + updates
    if not steps_critic:
        updates = update_time(actor, layout, on)
    fill, drain = sum(a.forward[:-1]), sum(b.backward[:-1])
    return m * max(both[0]) + m * max(both[1]) + fill + drain + updates


def inference_time(
    actor: Llama, critic: Llama, layout: Layout, work: Workload, on: Rates, *, merged: bool
) -> float:
    """Return the time of the inference stage: reference, reward and, where there is one, critic.

    `merged`: as one stream, so that the pipeline fills once; else one after the other.
    """
    local = work.local(layout.data)
    size = work.scored(local)
    m = local // size
    total, fills = on.c.inference_s, list[float]()
    bodies = [critic] * (1 + on.critic_learns)
    for model, head in ((actor, True), *((body, False) for body in bodies)):
        times = pass_times(model, layout, size, work.length, on, head=head, train=False).forward
        total += m * max(times)
        fills.append(sum(times) - max(times))
    return total + (max(fills) if merged else sum(fills))


def generation_time(actor: Llama, layout: Layout, work: Workload, on: Rates) -> float:
    """Return the time of generation without the switch: prefill, then a round per token."""
    return prefill_time(actor, layout, work, on) + decode_time(actor, layout, work, on)


def prefill_time(actor: Llama, layout: Layout, work: Workload, on: Rates) -> float:
    """Return the time in which all prompts of a replica pass."""
    size = work.prefill_micro_batch
    times = pass_times(actor, layout, size, work.prompt, on, head=True, train=False).forward
    return (work.local(layout.data) / size - 1) * max(times) + sum(times)


def decode_time(actor: Llama, layout: Layout, work: Workload, on: Rates) -> float:
    """Return the time of all tokens of the answers but the first."""
    slots = decode_slots(actor, layout, work, on)
    n = work.local(layout.data) / work.decode_micro_batch
    ring = on.c.full_ring if n >= layout.pipeline > 1 else 1.0
    return (work.answer - 1) * max(n * max(slots) * ring, sum(slots))


def decode_slots(actor: Llama, layout: Layout, work: Workload, on: Rates) -> list[float]:
    """Return the time of one decode step of one micro-batch by stage."""
    T, size, h = layout.tensor, work.decode_micro_batch, actor.hidden
    memory = on.c.memory_gbps * GB
    # Counted as the specification does: half an answer of cache on top of the prompt.
    width = on.kinds.weight
    weights = width * layer_weights(actor) / T / (memory * on.c.weight_reads)
    context = work.prompt + work.answer / 2
    cache = on.c.cache_reads * 2 * size * context * (actor.key_width / T) * width / memory
    reduce = 0.0
    if T > 1:
        reduce = 2 * (on.c.decode_allreduce_s + width * size * h / (on.c.allreduce_gbps * GB))
    layer = on.c.launch_decode_s + weights + cache + reduce
    slots = [n * layer + on.c.decode_p2p_s for n in layers_per_stage(actor.layers, layout.pipeline)]
    head = width * actor.vocabulary * h / T / (memory * on.c.weight_reads)
    slots[-1] += head + on.c.sample_s + on.c.sample_s_per_sequence * size
    return slots


class Prediction(NamedTuple):
    """Stage times of a PPO step, seconds."""

    generation: float
    switch: float
    inference: float
    training: float

    @property
    def step(self) -> float:
        """The whole step."""
        return self.generation + self.switch + self.inference + self.training


def switch_time(on: Rates, received_bytes: float, messages: int = 0) -> float:
    """Return the time of a switch in `messages` buckets; tensor by tensor, as released, if 0."""
    if not messages:
        return received_bytes / (on.c.switch_gbps * GB)
    return received_bytes / (on.c.gather_gbps * GB) + messages * on.c.message_s


def gather_time(model_bytes: float, on: Rates, world: int) -> float:
    """Return the time of gathering all weights on every device, as DeepSpeed-Chat does."""
    return on.c.gather_s + (world - 1) / world * model_bytes / (on.c.gather_gbps * GB)
