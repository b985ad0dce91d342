"""What was measured of a service as a table for the terminal."""

from collections.abc import Iterable

from rich.table import Table

from common.record import Metric


def served_table(metrics: Iterable[Metric]) -> Table:
    """Return what was measured of a service, and simulated beside it."""
    table = Table("figure", "value", title="service", title_justify="left")
    for metric in metrics:
        unit = "" if metric.unit == "1" else f" {metric.unit}"
        table.add_row(metric.name, f"{metric.value:.6g}{unit}")
    return table
