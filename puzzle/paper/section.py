"""From records to Puzzle's section of the report: tables, figures, words."""

from collections.abc import Sequence

from common.artifact import Folder
from common.claims import number
from common.page import Section, Table
from common.record import Record
from puzzle.paper import figures, own_figures, own_tables, tables
from puzzle.paper.measured import measured_figures, measured_table

INTRO = (
    "A PPO step generates with the actor, scores with three frozen or old models, and trains actor"
    " and critic. Puzzle moves the actor's weights into a layout that generates faster and back, by"
    " messages inside small groups of ranks, and merges both training pipelines into one. Published"
    " values are those of the artifact's logs; predicted ones come from a cost model calibrated on"
    " them; measured ones from this package's own ranks on this machine."
)

NOTES = (
    "The artifact's released code never updates the critic in the merged schedule, has SwiGLU and"
    " RoPE wrong, and each stage shuffles by its own random numbers: its times are valid, what it"
    " learns is not. Everything that is measured here has these mended.",
    "The paper's headline, up to 2.12x over DeepSpeed-Chat, is in no log: the logs give 1.29x to"
    " 2.07x, and 2.66x for 33B/7B with the run that really has the switch.",
)


def section(folder: Folder, records: Sequence[Record]) -> Section:
    """Return the section of these records."""
    shown = (
        tables.figure_8_table(records),
        tables.figure_9_table(records),
        tables.figure_10_table(records),
        tables.figure_11_table(records),
        tables.figure_12_table(records),
        tables.table_3_table(records),
        measured_table(records),
        own_tables.errors_table(records),
        own_tables.plans_table(records),
        own_tables.runs_table(records),
        own_tables.moved_table(records),
        own_tables.answers_table(folder),
    )
    drawn = (
        own_figures.curves(folder, records),
        figures.figure_eight(folder, records),
        figures.figure_nine(folder, records),
        figures.figure_ten(folder, records),
        figures.figure_eleven(folder, records),
        figures.figure_twelve(folder, records),
        *measured_figures(folder, records),
    )
    return Section(
        artifact=folder.artifact,
        title="Puzzle: PPO alignment with light-weight context switches",
        intro=INTRO,
        number=_number(own_tables.errors_table(records)),
        tables=shown,
        figures=tuple(filter(None, drawn)),
        notes=NOTES,
    )


def _number(errors: Table) -> str:
    shipped = [(row[1], row[2]) for row in errors.rows if row[0] == "shipped"]
    means = ", ".join(f"{number(mean)} % ({stage})" for stage, mean in shipped)
    return f"Mean error of the cost model on the published stage times: {means}." if means else ""
