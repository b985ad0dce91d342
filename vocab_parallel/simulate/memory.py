"""Peak memory of every rank, allocated and reserved: parameters, live activations, transients.

The constants were derived from the paper's 8-GPU rows (allocated) and the artifact's rows
(reserved); what is live comes from the schedule itself.
"""

from vocab_parallel.plan.passes import Kind
from vocab_parallel.plan.plans import Plan, parameters, vocabulary_shards

GIB = 2**30

_BASE = (0.117e9, 11.6)
"""Whole vocabulary layers: bytes of the context, and bytes per token and hidden unit."""
_SOFTMAX = (0.13e9, 52.0, 5.0)
"""Sharded, while a softmax is kept: context, per token and hidden unit, per logit of the shard."""
_OUTPUT_PASS = (0.10e9, 40.0, 6.5)
"""Sharded, inside S beside the embedding's gradient."""
_LOGIT = 6.5
"""Whole output layer: bytes per logit while its loss is computed, as in the sharded S pass."""
_UNTIL_W = 32.0
"""What B leaves for W, per token and hidden unit: inputs and output gradients of the products
(2 + 2 + 2 + 8 and 6 + 2 + 8 + 2 bytes)."""
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
    matrix = 2 * plan.model.vocabulary * plan.model.hidden / vocabulary_shards(plan)
    held = matrix + _slack(plan)
    return tuple(
        _allocated(plan, rank, dense_alternative=False) + held for rank in range(_ranks(plan))
    )


def activations_over_time(plan: Plan, rank: int) -> list[float]:
    """Return the bytes of live activations after every pass of a rank's program."""
    live, held = 0.0, list[float]()
    each = _activation_bytes(plan)
    change: dict[Kind, float] = {"F": 1.0, "B": -1.0}
    if plan.schedule.chunks == 2:
        change |= {
            "B": _UNTIL_W / plan.machine.activation_bytes - 1,
            "W": -_UNTIL_W / plan.machine.activation_bytes,
        }
    for item in plan.schedule.programs[rank]:
        if item.kind in change:
            layers = plan.layers[plan.schedule.stage(rank, item.chunk)]
            live += each * layers * change[item.kind]
        held.append(live)
    return held


def _allocated(plan: Plan, rank: int, *, dense_alternative: bool) -> float:
    static = plan.machine.parameter_bytes * parameters(plan, rank)
    live = max(activations_over_time(plan, rank), default=0.0)
    if plan.schedule.chunks == 2:
        live += _PILED * _units(plan) * max(plan.layers)
    if plan.schedule.barriers:
        return static + live + _sharded_transients(plan)
    context, per_unit = _BASE
    whole = static + live + context + per_unit * _units(plan)
    if rank == plan.schedule.place(plan.schedule.stages - 1)[0]:
        whole += _LOGIT * _logits(plan)
    if rank == 0 and dense_alternative:
        return max(whole, static + _without_one(plan, live) + _dense(plan))
    return whole


def _without_one(plan: Plan, live: float) -> float:
    """Return the live bytes after the first stage's B, when its embedding gradient is made."""
    return live - _activation_bytes(plan) * plan.layers[0]


def _dense(plan: Plan) -> float:
    matrix = 2 * plan.model.vocabulary * plan.model.hidden / vocabulary_shards(plan)
    return matrix + _DENSE_SLACK


def _sharded_transients(plan: Plan) -> float:
    model, units, logits = plan.model, _units(plan), _logits(plan)
    kept = _SOFTMAX[0] + _SOFTMAX[1] * units + _SOFTMAX[2] * logits
    inside = _OUTPUT_PASS[0] + _OUTPUT_PASS[1] * units + _OUTPUT_PASS[2] * logits
    return max(kept, inside + 2 * model.hidden * model.vocabulary / vocabulary_shards(plan))


def _logits(plan: Plan) -> float:
    """Return the logits of one micro-batch that a rank computes."""
    tokens = plan.batch_size * plan.model.sequence
    return tokens * plan.model.vocabulary / vocabulary_shards(plan)


def _slack(plan: Plan) -> float:
    (short, more), (long, less) = _RESERVED_GIB
    weight = min(1.0, max(0.0, (plan.model.sequence - short) / (long - short)))
    return (more + (less - more) * weight) * GIB


def _activation_bytes(plan: Plan) -> float:
    """Return the bytes that one layer keeps for one micro-batch.

    Of the 34 bytes tensor parallelism splits 24; norms' inputs, sums and dropout masks stay whole
    (Korthikanti et al. 2022, equation 2).
    """
    return plan.machine.activation_bytes * (10 + 24 / plan.tensor) / 34 * _units(plan)


def _units(plan: Plan) -> float:
    return plan.batch_size * plan.model.sequence * plan.model.hidden


def _ranks(plan: Plan) -> int:
    return plan.schedule.ranks
