"""A plan as a table for the terminal."""

from rich.table import Table

from beta.plan.plans import Plan, PlannedGroup


def plan_table(plan: Plan) -> Table:
    """Return a plan's first period as one row per group."""
    period = plan.periods[0]
    more = f", first of {len(plan.periods)} periods" if len(plan.periods) > 1 else ""
    made_up = ", on a stand-in" if plan.stand_in else ""
    table = Table(
        title=f"{plan.experiment}: {len(period.groups)} groups on {plan.devices} devices"
        f" ({plan.method}{more}{made_up})",
        title_justify="left",
    )
    for column in ("group", "devices", "op", "pp", "models", "memory GiB", "in time %"):
        table.add_column(column, justify="left" if column == "models" else "right")
    for number, group in enumerate(period.groups):
        table.add_row(*_cells(number, group, plan.memory_gib))
    return table


def _cells(number: int, group: PlannedGroup, capacity: float) -> tuple[str, ...]:
    last = group.first_device + group.op * group.pp - 1
    return (
        str(number),
        f"{group.first_device}-{last}",
        str(group.op),
        str(group.pp),
        " ".join(group.models),
        f"{group.memory_gib:.2f} of {capacity:g}",
        "–" if group.attainment is None else f"{100 * group.attainment:.2f}",
    )


def unplaced(plan: Plan) -> tuple[str, ...]:
    """Return a sentence on the models that no group holds at any time, none if there is none."""
    held = {name for period in plan.periods for group in period.groups for name in group.models}
    missing = [model.name for model in plan.models if model.name not in held]
    if not missing:
        return ()
    shown = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if missing[8:] else "")
    return (
        f"not placed, so every request for it is refused: {shown}; give more devices or"
        " cluster.memory_gib, or a profile with weight_bytes",
    )
