"""How long every pass takes: FLOP over efficiency, and bytes over bandwidth.

Vocabulary Parallelism Table 4 for the FLOP; the efficiencies are the machine's constants.
"""

from collections.abc import Mapping
from typing import NamedTuple

from vocab_parallel.inputs.machine import Machine, at_sequence, between, width_factor
from vocab_parallel.inputs.model import Model, layers_forward_flops, output_flops
from vocab_parallel.plan.dependencies import Link
from vocab_parallel.plan.gives import Delays
from vocab_parallel.plan.messages import ways
from vocab_parallel.plan.methods import find
from vocab_parallel.plan.passes import Kind
from vocab_parallel.plan.plans import Plan, layers_of, parameters, recomputed, vocabulary_shards

_HALF = 0.5
"""Share of a backward pass that is B where W is a pass of its own."""
_OUTPUT_SHARES = {"vocab-1": (1 / 3, 2 / 3), "vocab-2": (2 / 3, 1 / 3)}
"""S and T of the sharded output layer: 2 and 4 of 6 products, or 4 and 2."""
_IB_FIXED_MS = 0.15
_DENSE_FIXED_MS = 0.1


class Times(NamedTuple):
    """Durations in seconds: per rank the passes by (kind, chunk), and the links' times."""

    passes: tuple[Mapping[tuple[Kind, int], float], ...]
    delays: Delays


def pass_times(plan: Plan) -> Times:
    """Return the durations of a plan's passes on its machine."""
    ranks = tuple(_rank_times(plan, rank) for rank in range(plan.schedule.ranks))
    return Times(ranks, _delays(plan))


def _rank_times(plan: Plan, rank: int) -> dict[tuple[Kind, int], float]:
    schedule = plan.schedule
    times: dict[tuple[Kind, int], float] = {}
    for chunk in range(schedule.chunks):
        stage = schedule.stage(rank, chunk)
        forward, sums = _layers_parts(plan, layers_of(plan, stage))
        again = sum(sum(_layers_parts(plan, group)) for group in recomputed(plan, stage))
        forward, backward = forward + sums, 2 * forward + sums
        if schedule.barriers == 0:
            more = _whole_output(plan) if stage == schedule.stages - 1 else (0.0, 0.0)
            forward, backward = forward + more[0], backward + more[1]
            backward += _dense_gradient(plan) if stage == 0 else 0.0
        times["F", chunk] = forward
        times["B", chunk] = backward
        if schedule.split_backward:
            times["B", chunk] = times["W", chunk] = _HALF * backward
        times["B", chunk] += again
    if schedule.barriers:
        times |= _vocabulary_times(plan)
    return times


def stage_seconds(plan: Plan, stage: int) -> float:
    """Return the forward pass of a stage and micro-batch, slowed by overlapped collectives."""
    return sum(_layers_parts(plan, layers_of(plan, stage)))


def _layers_parts(plan: Plan, layers: range) -> tuple[float, float]:
    """Return layers' own work and, in tensor parallelism, two sums a layer over the team."""
    machine, model = plan.machine, plan.model
    rate = at_sequence(machine, machine.layer_tflops, model.sequence)
    rate *= width_factor(model.hidden, machine.hidden_saturation) * 1e12
    flops = layers_forward_flops(model, layers)
    work = plan.batch_size * flops / plan.tensor / rate * _overlap(plan)
    return work, 2 * len(layers) * _all_reduce_seconds(plan, plan.tensor)


def _overlap(plan: Plan) -> float:
    if plan.schedule.barriers == 0:
        return 1.0
    machine = plan.machine
    if not plan.schedule.synchronous:
        return machine.overlap_vocab
    machines = plan.schedule.ranks * plan.tensor / machine.node_ranks
    lost = between(machine.meeting_machines, machine.meeting_share, machines)
    return machine.overlap_interlaced / (1 - lost)


def _output_seconds(machine: Machine, model: Model, batch_size: int) -> float:
    wide = width_factor(model.hidden, machine.output_saturation)
    rate = machine.output_tflops * wide * 1e12
    return batch_size * output_flops(model) / rate


def _whole_output(plan: Plan) -> tuple[float, float]:
    """Return what a whole output layer adds to the last stage's F and B."""
    total = _output_seconds(plan.machine, plan.model, plan.batch_size) / plan.tensor
    share = plan.machine.output_forward_share
    return share * total, (1 - share) * total


def _vocabulary_times(plan: Plan) -> dict[tuple[Kind, int], float]:
    """Return IF, S, T and IB of one shard."""
    machine, schedule = plan.machine, plan.schedule
    algorithm = find(plan.method).output
    s, t = _OUTPUT_SHARES[algorithm]
    total = _output_seconds(machine, plan.model, plan.batch_size)
    total /= vocabulary_shards(plan)
    total *= machine.vocab_2_factor if algorithm == "vocab-2" else 1.0
    total += machine.output_fixed_ms * 1e-3 * _kilotokens(plan)
    reading = at_sequence(machine, machine.input_ms, plan.model.sequence) * 1e-3
    times: dict[tuple[Kind, int], float] = {
        ("IF", 0): reading * plan.batch_size,
        ("T", 0): t * total,
        ("IB", 0): _dense_gradient(plan),
    }
    for part in range(schedule.output_parts):
        times["S", part] = s * total / schedule.output_parts
    if schedule.output_parts == 2:
        # The first part has the products and writes the logits, which the second reads once more.
        logits = _tokens(plan) * plan.model.vocabulary / vocabulary_shards(plan)
        times["S", 1] += 2 * plan.holdings.statistics_bytes * logits / (machine.memory_gb_s * 1e9)
    return times


def _dense_gradient(plan: Plan) -> float:
    """Return the embedding's backward pass: it writes a gradient as large as the (sharded) matrix.

    The fixed part is larger where the pass stands alone (IB) than where it ends a B.
    """
    size = 2 * plan.model.hidden * plan.model.vocabulary / vocabulary_shards(plan)
    fixed = _IB_FIXED_MS if plan.schedule.barriers else _DENSE_FIXED_MS
    return fixed * 1e-3 * _kilotokens(plan) + size / (plan.machine.embedding_gb_s * 1e9)


def _tokens(plan: Plan) -> int:
    return plan.batch_size * plan.model.sequence


def _kilotokens(plan: Plan) -> float:
    return _tokens(plan) / 1024


def _delays(plan: Plan) -> dict[Link | tuple[int, int], float]:
    """Return how long links are taken; what leaves a machine runs at the network's rate."""
    machine, model = plan.machine, plan.model
    ranks = plan.schedule.ranks * plan.tensor
    rate = _rate(machine, ranks)
    all_reduce = _all_reduce_seconds(plan, ranks)
    broadcast = 4 * _tokens(plan) * (model.hidden + 1) / rate
    p2p = machine.p2p_ms * 1e-3 * _kilotokens(plan) * model.hidden / 3072
    far = max(p2p, 2 * _tokens(plan) * model.hidden / (machine.network_gb_s * 1e9))
    found: dict[Link | tuple[int, int], float] = {
        "p2p": p2p,
        "inputs": all_reduce,
        "hidden": broadcast,
        "statistics": 0.0 if plan.schedule.barriers == 0 else _STATISTICS_S,
        "gradient": all_reduce,
        "input gradient": broadcast / 2,
    }
    for source, target in ways(plan.schedule):
        machines = {rank * plan.tensor // machine.node_ranks for rank in (source, target)}
        if len(machines) == 2:
            found[source, target] = far
    return found


def replica_seconds(plan: Plan) -> float:
    """Return the sum of the gradients over the replicas, behind the last pass.

    With the optimizer shared out, each replica gets the sum of its part and sends its weights out
    (ZeRO-1, Rajbhandari et al. 2020, section 7): half of an all-reduce of each.
    """
    replicas = plan.holdings.replicas
    if replicas == 1:
        return 0.0
    most = max(parameters(plan, rank) for rank in range(plan.schedule.ranks))
    held = plan.holdings
    back = held.value_bytes if held.shard_optimizer else held.gradient_bytes
    size = (held.gradient_bytes + back) * most
    rate = _rate(plan.machine, plan.schedule.ranks * plan.tensor * replicas)
    return (replicas - 1) / replicas * size / rate


def _rate(machine: Machine, ranks: int) -> float:
    """Return the bytes per second of a collective of that many ranks."""
    return 1e9 * (machine.network_gb_s if ranks > machine.node_ranks else machine.collective_gb_s)


def _all_reduce_seconds(plan: Plan, ranks: int) -> float:
    """Return the sum of a micro-batch's hidden states, in 16 bit, over ranks."""
    size = 2 * _tokens(plan) * plan.model.hidden
    return 2 * (ranks - 1) / ranks * size / _rate(plan.machine, ranks)


_STATISTICS_S = 5e-5
"""Latency of the collective of maxima and sums; its volume is a few bytes a token."""
