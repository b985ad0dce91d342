"""The numbers that two records of Table 1 make together, for `claims.toml`."""

from collections.abc import Sequence

import msgspec

from common.record import Metric, Record, metric
from metis.paper.tables import searched


def reductions(records: Sequence[Record]) -> list[Record]:
    """Return a record per row of Table 1 with the steps that the stratified policy saves, %."""
    made = list[Record]()
    for row, metis, stratified in searched(records):
        steps = metric(metis, "search.steps"), metric(stratified, "search.steps")
        if not steps[0] or steps[1] is None:
            continue
        saved = Metric(
            name="search.step_reduction", value=100 * (1 - steps[1] / steps[0]), unit="%"
        )
        made.append(
            msgspec.structs.replace(
                stratified,
                case={"verb": "plan", "method": "both", "mode": "compat"},
                case_id=f"reduction-row{row.row}",
                metrics=(saved,),
                files={},
            )
        )
    return made
