"""Peak memory of every rank, allocated and reserved: parameters, live activations, transients.

The constants were derived from the paper's 8-GPU rows (allocated) and the artifact's rows
(reserved), all in 16 bit; what is live comes from the schedule itself, the sizes of values from
what a run keeps (`plan.holdings`). `run` asks the same functions.
"""

from vocab_parallel.plan.plans import Plan, parameters, vocabulary_shards
from vocab_parallel.simulate.activations import (
    activations_over_time,
    kept_bytes,
    made_again,
    scaled,
    tokens,
    units,
)

GIB = 2**30

_BASE = (0.117e9, 11.6)
"""Whole vocabulary layers: bytes of the context, and bytes per token and hidden unit."""
_KEPT = (0.13e9, 36.0, 1.0)
"""Sharded, while S waits for T: context, bytes per token and hidden unit, and per logit of the
shard beside what S leaves."""
_OUTPUT_PASS = (0.10e9, 24.0, 0.5)
"""Sharded, inside S beside the embedding's gradient; per logit beside the logits themselves."""
_UNDER_WAY = 2.0
"""Sharded, per token, hidden unit and stage: hidden states in 16 bit that are under way through the
pipeline (with the 16-GPU rows of Table 5 in view, where 8 more ranks take 16 bytes more)."""
_PILED = 18.0
"""Of these the output gradients, which B adds while the chunk's activations are still there."""
_DENSE_SLACK = 0.04e9
_RESERVED_GIB = ((2048, 1.05), (4096, 0.55))
"""What the caching allocator keeps beyond, by sequence length."""


def allocated(plan: Plan) -> tuple[float, ...]:
    """Return the bytes that tensors occupy at their peak, per rank."""
    return tuple(_allocated(plan, rank, dense_alternative=True) for rank in range(_ranks(plan)))


def reserved(plan: Plan) -> tuple[float, ...]:
    """Return the bytes that the caching allocator holds at its peak, per rank."""
    held = _matrix(plan) + _slack(plan)
    return tuple(
        _allocated(plan, rank, dense_alternative=False) + held for rank in range(_ranks(plan))
    )


def static_bytes(plan: Plan, rank: int) -> float:
    """Return the bytes of a rank's weights, gradients and optimizer."""
    return float(plan.holdings.parameter_bytes * parameters(plan, rank))


def needed(plan: Plan) -> tuple[float, ...]:
    """Return the bytes of a device that every rank needs: tensors and the machine's reserve."""
    kept = plan.machine.reserve * plan.machine.memory_gib * GIB
    return tuple(found + kept for found in allocated(plan))


def _allocated(plan: Plan, rank: int, *, dense_alternative: bool) -> float:
    static = static_bytes(plan, rank)
    live = max(activations_over_time(plan, rank), default=0.0)
    if plan.schedule.split_backward:
        live += scaled(plan, _PILED) * units(plan) * max(plan.layers)
    if plan.schedule.barriers:
        return static + live + _sharded_transients(plan)
    context, per_unit = _BASE
    whole = static + live + context + scaled(plan, per_unit) * units(plan) + made_again(plan)
    if rank == plan.schedule.place(plan.schedule.stages - 1)[0]:
        whole += _logit_bytes(plan) * _logits(plan)
    if rank == 0 and dense_alternative:
        return max(whole, static + _without_one(plan, live) + _dense(plan))
    return whole


def _without_one(plan: Plan, live: float) -> float:
    """Return the live bytes after the first stage's B, when its embedding gradient is made."""
    return live - kept_bytes(plan, 0)


def _dense(plan: Plan) -> float:
    return _matrix(plan) + _DENSE_SLACK


def _matrix(plan: Plan) -> float:
    """Return the bytes of a rank's rows of a vocabulary matrix, or of their gradient."""
    values = plan.model.vocabulary * plan.model.hidden / vocabulary_shards(plan)
    return plan.holdings.value_bytes * values


def _sharded_transients(plan: Plan) -> float:
    """Return the larger of what is there between S and T and inside S."""
    held, each, logits = plan.holdings, units(plan), _logits(plan)
    under_way = _UNDER_WAY * plan.schedule.stages
    left = {"softmax": held.statistics_bytes, "logits": held.value_bytes, "nothing": 0}[held.keep]
    part = min(1.0, held.block / tokens(plan)) if held.block else 1.0
    kept, passing = (scaled(plan, one + under_way) for one in (_KEPT[1], _OUTPUT_PASS[1]))
    between = _KEPT[0] + kept * each + (_KEPT[2] * part + left) * logits + made_again(plan)
    inside = _OUTPUT_PASS[0] + passing * each
    inside += (_logit_bytes(plan) * part + left * (1 - part)) * logits + _matrix(plan)
    # With three barriers the logits of the next micro-batch wait for their maximum beside it.
    waiting = held.statistics_bytes * logits if plan.schedule.output_parts == 2 else 0.0
    return max(between, inside) + waiting


def _logit_bytes(plan: Plan) -> float:
    """Return the bytes of a logit while its loss is computed: value, softmax, elementwise work."""
    held = plan.holdings
    copy = held.statistics_bytes if held.value_bytes < held.statistics_bytes else 0
    return held.value_bytes + copy + _OUTPUT_PASS[2]


def _logits(plan: Plan) -> float:
    """Return the logits of one micro-batch that a rank computes."""
    return tokens(plan) * plan.model.vocabulary / vocabulary_shards(plan)


def _slack(plan: Plan) -> float:
    (short, more), (long, less) = _RESERVED_GIB
    weight = min(1.0, max(0.0, (plan.model.sequence - short) / (long - short)))
    return (more + (less - more) * weight) * GIB


def _ranks(plan: Plan) -> int:
    return plan.schedule.ranks
