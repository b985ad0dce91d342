"""The original planner's log, line for line, so that its logs and ours can be compared."""

from metis.plan.search import RankedPlan, SearchResult

HEADER = (
    "rank, cost, node_sequence, device_groups, strategies(dp_deg, tp_deg),"
    " batches(number of batch), layer_partition"
)


def log_text(result: SearchResult, mean_ms: float, *, ranks: int = 1) -> str:
    """Return the log of a search: average time, count, and the cheapest plans."""
    lines = [f"Average time: {mean_ms} ms", f"count: {result.steps}", HEADER]
    for rank, index in enumerate(result.ranking()[:ranks], 1):
        lines.append(_line(rank, result.plan(int(index))))
    return "\n".join(lines) + "\n"


def _line(rank: int, plan: RankedPlan) -> str:
    types = "".join(f"<DeviceType.{t}: '{t.lower()}'>, " for t in plan.layout.node_sequence)
    sequence = f"({types.removesuffix(' ')})" if types.count("<") == 1 else f"({types[:-2]})"
    survivor = plan.survivor
    return (
        f"{rank}, {plan.cost_ms}, {sequence}, {list(plan.layout.groups)},"
        f" {list(survivor.strategies)}, {plan.batches}, {list(survivor.split)}"
    )
