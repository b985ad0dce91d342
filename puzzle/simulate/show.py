"""What a case gave as a table for the terminal."""

from collections.abc import Sequence

from rich.table import Table

from common.record import Metric


def times_table(metrics: Sequence[Metric]) -> Table:
    """Return times and sizes of a case."""
    table = Table("", "value", "unit", box=None)
    for metric in metrics:
        table.add_row(metric.name, f"{metric.value:.6g}", metric.unit)
    return table
