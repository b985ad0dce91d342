"""Stage times of a PPO step in closed form (specification section 7).

Times are seconds. Beyond the specification's form: an optimizer step grows with the parameters a
device holds, and a full decode ring is slower (`Constants.full_ring`).
"""

from typing import NamedTuple

from puzzle.inputs.cluster import GB, Constants
from puzzle.inputs.layout import Layout, layers_per_stage
from puzzle.inputs.model import Llama, layer_weights
from puzzle.inputs.workload import Workload

HALF = 2
"""Bytes of a half-precision number."""


class PassTimes(NamedTuple):
    """Forward and backward time of one micro-batch by stage."""

    forward: tuple[float, ...]
    backward: tuple[float, ...]


def pass_times(
    model: Llama, layout: Layout, batch: int, length: int, c: Constants, *, head: bool, train: bool
) -> PassTimes:
    """Return a micro-batch's times; `batch` sequences, `head`: with a language-model head."""
    tokens, T, h = batch * length, layout.tensor, model.hidden
    launch = c.launch_train_s if train else c.launch_infer_s
    reduce = 0.0
    if T > 1:
        ring = HALF * tokens * h * 2 * (T - 1) / T / (c.allreduce_gbps * GB)
        reduce = 2 * (ring + c.allreduce_latency_s)
    hop = tokens * h * HALF / (c.p2p_gbps * GB) + c.p2p_latency_s
    forward: list[float] = []
    backward: list[float] = []
    counts = layers_per_stage(model.layers, layout.pipeline)
    for stage, n in enumerate(counts):
        flops = n * (2 * layer_weights(model) * tokens + 4 * tokens * length * h) / T
        last = head and stage == len(counts) - 1
        if last:
            flops += 2 * model.vocabulary * h * tokens / T
        computing = flops / (c.peak_tflops * 1e12 * c.efficiency) + n * launch
        loss = c.loss_s if last and train else 0.0
        forward.append(computing + n * reduce + hop + loss)
        backward.append(c.backward_factor * computing + n * reduce + hop)
    return PassTimes(tuple(forward), tuple(backward))


def update_time(model: Llama, layout: Layout, c: Constants) -> float:
    """Return the time of summing gradients over replicas and the optimizer step of one device."""
    held = model.layers * layer_weights(model) / (layout.pipeline * layout.tensor)
    reduce = 0.0
    if layout.data > 1:
        reduce = 2 * (layout.data - 1) / layout.data * held * HALF / (c.p2p_gbps * GB)
    return c.update_s + c.update_s_per_billion * held / 1e9 + reduce


def training_time(
    actor: Llama,
    critic: Llama,
    layout: Layout,
    work: Workload,
    c: Constants,
    *,
    merged: bool,
    steps_critic: bool = True,
) -> float:
    """Return the time of the training stage.

    `steps_critic=False` leaves out the critic's update in the merged schedule, as released.
    """
    m = work.local(layout.data) // work.micro_batch
    a, b = (
        pass_times(model, layout, work.micro_batch, work.length, c, head=head, train=True)
        for model, head in ((actor, True), (critic, False))
    )
    both = [[f + g for f, g in zip(*times, strict=True)] for times in (a, b)]
    updates = update_time(actor, layout, c) + update_time(critic, layout, c)
    if not merged:
        return sum(m * max(t) + sum(t[:-1]) for t in both) + updates
    if not steps_critic:
        updates = update_time(actor, layout, c)
    fill, drain = sum(a.forward[:-1]), sum(b.backward[:-1])
    return m * max(both[0]) + m * max(both[1]) + fill + drain + updates


def inference_time(
    actor: Llama, critic: Llama, layout: Layout, work: Workload, c: Constants, *, merged: bool
) -> float:
    """Return the time of the inference stage: reference, reward and critic.

    `merged`: as one stream, so that the pipeline fills once; else one after the other.
    """
    size = work.inference_micro_batch
    m = max(1, work.local(layout.data) // size)
    total, fills = c.inference_s, list[float]()
    for model, head in ((actor, True), (critic, False), (critic, False)):
        times = pass_times(model, layout, size, work.length, c, head=head, train=False).forward
        total += m * max(times)
        fills.append(sum(times) - max(times))
    return total + (max(fills) if merged else sum(fills))


def generation_time(actor: Llama, layout: Layout, work: Workload, c: Constants) -> float:
    """Return the time of generation without the switch: prefill, then a round per token."""
    local = work.local(layout.data)
    pf, size = work.prefill_micro_batch, work.decode_micro_batch
    times = pass_times(actor, layout, pf, work.prompt, c, head=True, train=False).forward
    prefill = (local / pf - 1) * max(times) + sum(times)
    slots = decode_slots(actor, layout, work, c)
    n = local / size
    ring = c.full_ring if n >= layout.pipeline > 1 else 1.0
    return prefill + (work.answer - 1) * max(n * max(slots) * ring, sum(slots))


def decode_slots(actor: Llama, layout: Layout, work: Workload, c: Constants) -> list[float]:
    """Return the time of one decode step of one micro-batch by stage."""
    T, size, h = layout.tensor, work.decode_micro_batch, actor.hidden
    memory = c.memory_gbps * GB
    # Counted as the specification does: 2 bytes per weight, and half an answer of cache on top of
    # the prompt.
    weights = HALF * layer_weights(actor) / T / (memory * c.weight_reads)
    context = work.prompt + work.answer / 2
    cache = c.cache_reads * HALF * size * context * (actor.key_width / T) * HALF / memory
    reduce = 0.0
    if T > 1:
        reduce = 2 * (c.decode_allreduce_s + HALF * size * h / (c.allreduce_gbps * GB))
    layer = c.launch_decode_s + weights + cache + reduce
    slots = [n * layer + c.decode_p2p_s for n in layers_per_stage(actor.layers, layout.pipeline)]
    head = HALF * actor.vocabulary * h / T / (memory * c.weight_reads)
    slots[-1] += head + c.sample_s + c.sample_s_per_sequence * size
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


def switch_time(c: Constants, received_bytes: float, messages: int = 0) -> float:
    """Return the time of a switch in `messages` buckets; tensor by tensor, as released, if 0."""
    if not messages:
        return received_bytes / (c.switch_gbps * GB)
    return received_bytes / (c.gather_gbps * GB) + messages * c.message_s


def gather_time(model_bytes: float, c: Constants, world: int) -> float:
    """Return the time of gathering all weights on every device, as DeepSpeed-Chat does."""
    return c.gather_s + (world - 1) / world * model_bytes / (c.gather_gbps * GB)
