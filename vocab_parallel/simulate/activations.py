"""What the layers' F keeps for B and W, over time: the activations of micro-batches under way.

The bytes of a layer are counted from its parts (Korthikanti et al. 2022); what is live comes from
the schedule itself.
"""

from vocab_parallel.inputs.model import Model
from vocab_parallel.plan.passes import Kind
from vocab_parallel.plan.plans import Plan, recomputed

_UNTIL_W = 32.0
"""What B leaves for W, per token and hidden unit: inputs and output gradients of the products
(2 + 2 + 2 + 8 and 6 + 2 + 8 + 2 bytes)."""


def activations_over_time(plan: Plan, rank: int) -> list[float]:
    """Return the bytes of live activations after every pass of a rank's program."""
    live, held = 0.0, list[float]()
    changes = [
        _changes(plan, plan.schedule.stage(rank, chunk)) for chunk in range(plan.schedule.chunks)
    ]
    for item in plan.schedule.programs[rank]:
        if item.kind in ("F", "B", "W"):
            live += changes[item.chunk][item.kind]
        held.append(live)
    return held


def _changes(plan: Plan, stage: int) -> dict[Kind, float]:
    """Return by how much a stage's passes change the bytes of live activations."""
    kept = kept_bytes(plan, stage)
    until = 0.0
    if plan.schedule.split_backward:
        until = _until_w(plan) * _layer_bytes(plan) * plan.layers[stage]
    return {"F": kept, "B": until - kept, "W": -until}


def kept_bytes(plan: Plan, stage: int) -> float:
    """Return what a stage's F leaves for its B: of a recomputed group of layers the input alone.

    The input is 2 bytes per hidden unit in 16 bit (Korthikanti et al. 2022, section 5).
    """
    groups = recomputed(plan, stage)
    whole = plan.layers[stage] - sum(map(len, groups))
    part = plan.tensor if plan.holdings.sequence_parallel else 1
    inputs = len(groups) * plan.holdings.value_bytes * units(plan) / part
    return whole * _layer_bytes(plan) + inputs


def made_again(plan: Plan) -> float:
    """Return the bytes of the largest group of layers while B computes with it again."""
    groups = [group for stage in range(len(plan.layers)) for group in recomputed(plan, stage)]
    return max(map(len, groups), default=0) * _layer_bytes(plan)


def _layer_bytes(plan: Plan) -> float:
    """Return the bytes that one layer keeps for one micro-batch.

    Of a GPT's 34 bytes per hidden unit tensor parallelism splits 24; norms' inputs, sums and
    dropout masks stay whole unless the sequence is cut (Korthikanti et al. 2022, equations 2, 4).
    """
    whole, split = _kept_in_16_bit(plan.model)
    masks = 2.0 * (plan.model.positions == "learned")
    part = plan.tensor if plan.holdings.sequence_parallel else 1
    values = (whole / part + split / plan.tensor) * plan.holdings.value_bytes / 2
    return plan.machine.activation_bytes / 34 * (values + masks / part) * units(plan)


def _kept_in_16_bit(model: Model) -> tuple[float, float]:
    """Return what a layer keeps, in bytes of 16-bit values per hidden unit: whole, and split.

    Whole: inputs of norms and sums. Split: queries, keys, values, the attention's output and the
    MLP's inner activations (before and behind the nonlinearity; gated: three).
    """
    queries, keys = model.heads * model.head, model.groups * model.head
    whole = 2 * (2 + model.norms) * model.hidden
    split = 4 * queries + 4 * keys + (6 if model.gated else 4) * model.wide
    split += 2 * (queries + keys) * model.qk_norm
    return whole / model.hidden, split / model.hidden


def _until_w(plan: Plan) -> float:
    """Return which part of a layer's bytes B leaves for W: a GPT's 32 of 34."""
    whole, split = _kept_in_16_bit(plan.model)
    return (
        _UNTIL_W / 32 * (whole + split) / (whole + split + 2 * (plan.model.positions == "learned"))
    )


def scaled(plan: Plan, in_16_bit: float) -> float:
    """Return bytes that were counted in 16 bit as they are in the run's own type."""
    return in_16_bit * plan.holdings.value_bytes / 2


def tokens(plan: Plan) -> int:
    """Return the tokens of a micro-batch."""
    return plan.batch_size * plan.model.sequence


def units(plan: Plan) -> float:
    """Return the numbers of a micro-batch's hidden state: tokens x hidden size."""
    return tokens(plan) * plan.model.hidden
