"""A folder of logs, the original's or ours, as a table of its runs and a line per fault."""

from pathlib import Path

from rich.console import RenderableType
from rich.table import Table

from puzzle.paper.anomalies import anomalies
from puzzle.paper.logs import read_folder


def listing(folder: Path) -> tuple[RenderableType, ...] | None:
    """Return a folder's runs and what does not fit together; None where the path is no folder."""
    if not folder.is_dir():
        return None
    logs, empty = read_folder(folder)
    table = Table(title=f"{folder}: means in s, first steps left out", title_justify="left")
    for column in ("log", "P-D-T", "steps", "stage 1", "stage 2", "stage 3", "step", "switch"):
        table.add_column(column, justify="left" if column == "log" else "right", overflow="fold")
    for log in logs:
        where = "-".join(str(log.world[i]) for i in (3, 1, 2)) if log.world else ""
        switch = log.switch()
        table.add_row(
            str(Path(log.path).relative_to(folder)),
            where,
            str(len(log.steps)),
            *(f"{seconds:.4f}" for seconds in log.means()),
            "" if switch is None else f"{switch:.4f}",
        )
    found = anomalies(logs, empty)
    return table, *(f"does not fit: {line}" for line in found), f"{len(found)} anomalies"
