"""A plan made anew as tables and files: the plans side by side, and what moves where."""

from pathlib import Path

import msgspec
from rich.table import Table

from common import files
from common.artifact import Ask
from metis.plan.moves import Moves
from metis.plan.plans import Plan
from metis.plan.replan import Replanned, Step, amount

ROWS = 8
"""Nodes that are shown, those first to which most comes."""


def tables(done: Replanned) -> tuple[Table, ...]:
    """Return the tables for the terminal."""
    assert done.new is not None, "only what has a plan is shown"
    nodes = _nodes(done, done.new.moves)
    return (_plans(done, done.new), *((nodes,) if nodes.row_count else ()))


def _plans(done: Replanned, new: Step) -> Table:
    table = Table(title="The plans", title_justify="left")
    for column in ("plan", "ms", "devices", "stages", "moves", "from checkpoint"):
        table.add_column(column, justify="left" if column == "plan" else "right")
    table.add_row("before", *_facts(done.change.before), "", "")
    if done.repaired:
        moves = done.repaired.moves
        table.add_row(
            "on what is left", *_facts(done.repaired.plan), amount(moves.total), amount(moves.lost)
        )
    table.add_row("now", *_facts(new.plan), amount(new.moves.total), amount(new.moves.lost))
    return table


def _facts(plan: Plan) -> tuple[str, str, str]:
    return f"{plan.cost_ms:.3f}", str(plan.world_size), str(len(plan.stages))


def _nodes(done: Replanned, moves: Moves) -> Table:
    """Return what comes to and leaves each node, and the seconds over its link."""
    table = Table(title="What moves, by node", title_justify="left")
    for column in ("node", "devices", "receives", "sends", "from checkpoint", "seconds"):
        left = column in ("node", "devices")
        table.add_column(column, justify="left" if left else "right")
    machines, received, sent = done.cluster.machines(), moves.received(), moves.sent()
    every = received.keys() | sent.keys() | moves.stored.keys()
    come = {m: received[m] + moves.stored.get(m, 0.0) for m in every}
    order = sorted(every, key=lambda m: (-max(come[m], sent[m]), m))
    for m in order[:ROWS]:
        node = machines[m]
        seconds = max(come[m], sent[m]) / (1e9 * node.inter_bandwidth)
        stored = moves.stored.get(m, 0.0)
        table.add_row(
            node.host, f"{node.devices} x {node.device}", amount(received[m]), amount(sent[m]),
            amount(stored) if stored else "", f"{seconds:.1f}",
        )  # fmt: skip
    if len(order) > ROWS:
        table.add_row(f"and {len(order) - ROWS} more")
    return table


def write(done: Replanned, given: Path, ask: Ask) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Write the moves, the repaired plan and, where it is about to be replaced, the old plan.

    Return the files and what to say of them.
    """
    assert done.new is not None, "only what has a plan is written"
    if ask.folder is None:
        return (), ()
    plan = done.new.plan
    stem = f"{plan.experiment}.{plan.method}"
    at = ask.folder.at("plans", f"{stem}.moves.json")
    written = [files.write(at, _moves(done, done.new.moves))]
    hints = [f"moves between nodes: {at}"]
    if done.repaired:
        left = ask.folder.at("plans", f"{stem}.left.json")
        written.append(files.write_plan(done.repaired.plan, left))
        hints.append(f"on what is left: {left} (to take it, --plan)")
    if given.resolve() == ask.folder.at("plans", f"{stem}.json").resolve():
        old = ask.folder.at("plans", f"{stem}.before.json")
        written.append(files.write_plan(done.change.before, old))
        hints.append(f"the plan before is kept: {old}")
    return tuple(written), tuple(hints)


def _moves(done: Replanned, moves: Moves) -> bytes:
    """Return the bytes by pair of hosts, and from the checkpoint, as JSON."""
    hosts = [node.host for node in done.cluster.machines()]
    content = {
        "between": [
            {"from": hosts[a], "to": hosts[b], "bytes": round(size)}
            for (a, b), size in sorted(moves.between.items())
        ],
        "from_checkpoint": [
            {"to": hosts[m], "bytes": round(size)} for m, size in sorted(moves.stored.items())
        ],
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
