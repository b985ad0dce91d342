"""What a run measured as a table for the terminal."""

from collections.abc import Sequence

from rich.table import Table

from common.record import Metric


def stages_table(metrics: Sequence[Metric]) -> Table:
    """Return measured beside predicted stage times of a run's metrics."""
    values = {metric.name: metric.value for metric in metrics}
    table = Table("stage", "measured ms", "predicted ms", "measured / predicted")
    for stage in range(len(values)):
        if f"stage{stage}.execution" not in values:
            break
        measured, predicted = values[f"stage{stage}.execution"], values[f"stage{stage}.predicted"]
        ratio = f"{measured / predicted:.2f}" if predicted else "–"
        table.add_row(str(stage), f"{measured:.3f}", f"{predicted:.3f}", ratio)
    return table
