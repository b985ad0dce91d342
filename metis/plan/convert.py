"""From a search's answer to the `Plan` that is written, simulated and run."""

from metis.plan import cost
from metis.plan.memory import demand_and_capacity, in_flight
from metis.plan.plans import Plan, Stage
from metis.plan.search import RankedPlan
from metis.plan.walk import pair_send_ms


def to_plan(
    found: RankedPlan,
    *,
    experiment: str,
    method: str,
    mode: str,
    machines: tuple[int, ...] = (),
    lower_bound_ms: float | None = None,
    proof: str = "",
) -> Plan:
    """Return the plan value with every stage's predicted times and memory."""
    terms = found.survivor.terms
    assert terms is not None, "only costed plans are ranked"
    problem = found.model.problem
    return Plan(
        experiment=experiment,
        method=method,
        mode=mode,
        model=problem.model,
        node_sequence=found.layout.node_sequence,
        machines=machines,
        batches=found.batches,
        stages=tuple(_stage(found, s) for s in range(len(found.survivor.options))),
        cost_ms=terms.total,
        cost_terms=terms._asdict(),
        lower_bound_ms=lower_bound_ms,
        proof=proof,
    )


def _stage(found: RankedPlan, s: int) -> Stage:
    options, split = found.survivor.options, found.survivor.split
    option, first, end = options[s], split[s], split[s + 1]
    problem = found.model.problem
    layers = problem.model.layers
    demand, capacity = demand_and_capacity(
        option, first, end, in_flight(s, len(options), found.batches)
    )
    last = s + 1 == len(options)
    return Stage(
        first_rank=option.first_rank,
        device_types=found.model.ranks.types(option.first_rank, option.devices),
        dp=option.dp,
        tp=option.tp,
        first_layer=first,
        end_layer=end,
        samples=option.samples,
        recompute=option.recompute,
        sharded=option.sharded,
        execution_ms=float(option.time[first, end]),
        memory_mb=float(demand),
        capacity_mb=float(capacity),
        send_ms=0.0 if last else pair_send_ms(option, options[s + 1], end == layers - 1),
        allreduce_ms=cost.allreduce_ms(
            float(option.parameters[first, end]),
            dp=option.dp,
            bandwidth=option.allreduce_bandwidth,
        ),
        update_ms=cost.update_ms(
            option.optimizer_ms, tp=option.tp, layers=end - first, all_layers=layers
        ),
    )
