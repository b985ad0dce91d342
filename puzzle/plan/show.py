"""A plan, and what was weighed against it, as tables for the terminal."""

from collections.abc import Iterable

from rich.table import Table

from puzzle.inputs.cluster import GIB
from puzzle.inputs.experiment import Experiment
from puzzle.plan.planner import Candidate
from puzzle.plan.plans import Plan
from puzzle.simulate.rates import rates_of
from puzzle.simulate.timeline import training_timeline


def candidates_table(experiment: Experiment, candidates: Iterable[Candidate]) -> Table:
    """Return the planner's best plans, the shortest step first."""
    table = Table(
        title=f"{experiment.name}: best plans, predicted (seconds)",
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
        caption="batches: of training/scoring/prefill/decode; train.: merged in closed form"
        " (published for it alone), fused by its timeline; played: the pass list in time; +r layers"
        " recomputed, +z optimizer sharded",
        caption_justify="left",
    )
    for column in ("train", "generate", "order", "batches"):
        table.add_column(column, no_wrap=True)
    for column in ("gen.", "switch", "infer.", "train.", "played", "step", "GiB"):
        table.add_column(column, justify="right", no_wrap=True)
    found = list(candidates)
    digits = 2 if found[0].predicted.times.step >= 1 else 4
    for plan, predicted in found:
        times = predicted.times
        played = training_timeline(plan, rates_of(plan, experiment.machines)).seconds
        table.add_row(
            str(plan.choice.training),
            str(plan.choice.generation),
            plan.choice.schedule
            + "+r" * plan.choice.recompute
            + "+z" * plan.choice.shard_optimizer,
            plan.work.cut(plan.choice.training.data),
            *(f"{t:.{digits}f}" for t in (*times, played, times.step)),
            f"{predicted.memory.peak / GIB:.{digits - 1}f}",
        )
    return table


def switch_table(plan: Plan) -> Table:
    """Return what every rank keeps, receives and sends, the first ranks only where many."""
    assert plan.switch is not None
    choice = plan.choice
    table = Table(
        title=f"switch {choice.training} to {choice.generation}, mapping {choice.mapping} (MB)",
        title_justify="left",
    )
    for column in ("rank", "used in place", "copied", "received", "sent", "messages"):
        table.add_column(column, justify="right")
    s = plan.switch
    for rank in range(min(plan.world, 16)):
        sizes = (s.kept[rank], s.copied[rank], s.received[rank], s.sent[rank])
        table.add_row(str(rank), *(f"{size / 1e6:.4g}" for size in sizes), str(s.messages[rank]))
    return table
