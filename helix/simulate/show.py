"""What comes of a plan under load as tables for the terminal."""

from collections.abc import Mapping, Sequence

from rich.table import Table

from common.record import Metric
from helix.plan.placement import UNUSED
from helix.plan.plans import Plan
from helix.simulate.latencies import PERCENTILES
from helix.simulate.metrics import Outcome


def latency_table(metrics: Sequence[Metric]) -> Table:
    """Return the latencies among the metrics of a simulation or a run."""
    values = {metric.name: metric.value for metric in metrics}
    names = (*PERCENTILES, "mean")
    table = Table("", *names)
    for phase in ("prompt", "decode"):
        table.add_row(f"{phase}, s", *(short(values.get(f"{phase}.{name}")) for name in names))
    return table


def short(value: float | None) -> str:
    """Return a value for a cell."""
    return "-" if value is None else f"{value:.3f}"


def machine_table(plan: Plan, outcomes: Mapping[str, Outcome]) -> Table:
    """Return how busy each machine was and how full its KV cache, of the window simulated."""
    table = Table("service", "machine", "kind", "layers", "busy, %", "KV at most, %")
    for service in plan.services:
        outcome = outcomes[service.name]
        for i in sorted(range(len(service.machines)), key=lambda i: service.intervals[i]):
            first, end = service.intervals[i]
            if (first, end) == UNUSED:
                continue
            room = outcome.kv_entries[i]
            table.add_row(
                service.name,
                str(service.machines[i]),
                plan.machines[service.machines[i]],
                f"{first}-{end - 1}",
                f"{100 * outcome.utilisation[i]:.0f}",
                f"{100 * outcome.kv_peak[i] / room:.0f}" if room else "",
            )
    return table
