"""A plan as a table for the terminal."""

from rich.table import Table

from helix.inputs.cluster import FIRST
from helix.plan.memory import Held
from helix.plan.placement import UNUSED
from helix.plan.plans import Plan

RIGHT = ("flow", "decoded tokens/s", "of the best", "request, s")


def plan_table(plan: Plan) -> Table:
    """Return which machine holds which layers, and what passes through it."""
    table = Table(
        title=f"{plan.experiment}: {plan.flow:.2f} tokens/s"
        f"{f' of at most {plan.bound:.2f}' * plan.bounded} ({plan.method}, {plan.objective})",
        title_justify="left",
    )
    numbers = ("GB", "KV", "tokens/s", "share", "if lost")
    for column in ("service", "machine", "kind", "layers", *numbers, "next"):
        table.add_column(column, justify="right" if column in numbers else "left")
    held = {one.machine: one for one in plan.held}
    without = {one.machine: one.flow for one in plan.without}
    for service in plan.services:
        order = sorted(range(len(service.machines)), key=lambda i: service.intervals[i])
        for i in order:
            first, end = service.intervals[i]
            if (first, end) == UNUSED:
                machine = service.machines[i]
                table.add_row(service.name, str(machine), plan.machines[machine], "unused")
                continue
            through = sum(r.flow for r in service.routes if r.tail == i + FIRST)
            following = [
                "out" if r.head < FIRST else str(service.machines[r.head - FIRST])
                for r in service.routes
                if r.tail == i + FIRST and (r.flow > 0 or service.flow <= 0)
            ]
            table.add_row(
                service.name,
                str(service.machines[i]),
                plan.machines[service.machines[i]],
                f"{first}-{end - 1}",
                *_memory(held.get(service.machines[i])),
                f"{through:.1f}",
                f"{through / service.flow:.2f}" if service.flow > 0 else "",
                _lost(without.get(service.machines[i]), plan.flow),
                " ".join(following),
            )
    return table


def _lost(left: float | None, flow: float) -> str:
    """Return by how much the flow falls without a machine, the layers staying where they are."""
    return "" if left is None else f"-{100 * max(1 - left / flow, 0.0):.0f} %"


def compared_table(plan: Plan) -> Table:
    """Return what the portfolio's methods answered, each simulated by its best split, best first.

    The rate is in decoded tokens/s.
    """
    table = Table(title=f"answers compared; taken: {plan.found_by}", title_justify="left")
    for column in ("method", "split", "flow", "decoded tokens/s", "of the best", "request, s", ""):
        table.add_column(column, justify="right" if column in RIGHT else "left")
    best = max((one.rate or 0.0 for one in plan.compared), default=0.0)
    shown = set[str]()
    for one in plan.compared:
        if one.method in shown:
            continue
        shown.add(one.method)
        share = f"{100 * one.rate / best:.1f} %" if one.rate is not None and best else ""
        rate = "" if one.rate is None else f"{one.rate:.1f}"
        seconds = "" if one.seconds is None else f"{one.seconds:.1f}"
        flow = f"{one.flow:.1f}" if one.flow else ""
        table.add_row(one.method, one.split, flow, rate, share, seconds, one.said)
    return table


def _memory(held: Held | None) -> tuple[str, str]:
    """Return a machine's weights, of its memory if known, and the tokens of its KV cache."""
    if held is None:  # a plan of an earlier version
        return "", ""
    of = f"/{held.memory / 1e9:g}" if held.memory else ""
    return f"{held.weights / 1e9:.4g}{of}", f"{held.kv_tokens // 1000}k"
