"""The tables of what the paper does not show: plans, the model's errors, this machine's runs."""

from collections.abc import Sequence

import msgspec

from common.artifact import Folder
from common.page import Table
from common.record import Record, find, metric, samples
from puzzle.paper.experiments import PAIRS
from puzzle.paper.tables import Cell, ratio, rounded
from puzzle.run.settings import RunResult


def plans_table(records: Sequence[Record]) -> Table:
    """Return the planner's choices beside the authors'."""
    rows: list[tuple[Cell, ...]] = []
    for cluster, pairs in PAIRS.items():
        for pair in pairs:
            name = f"{cluster}-{pair.actor}-{pair.critic}"
            ours, theirs = (find(records, name, "plan", m) for m in ("auto", "given"))
            a, b = metric(ours, "step.time"), metric(theirs, "step.time")
            rows.append(
                (
                    cluster, f"{pair.actor}/{pair.critic}".upper(), pair.devices, rounded(b, 2),
                    rounded(a, 2), ratio(b, a), str(ours.case.get("plan", "")) if ours else None,
                    rounded(metric(ours, "memory.peak"), 1),
                )
            )  # fmt: skip
    return Table(
        title="What the planner would choose, predicted",
        columns=(
            "cluster", "models", "devices", "authors' layouts s", "planner's s", "gain", "plan",
            "GiB",
        ),
        rows=tuple(row for row in rows if row[4] is not None),
        note="Both with the critic updated and inference merged. The planner may take the fused"
        " schedule, predicted by its timeline where merged is in closed form, and data"
        " parallelism, which the original's switch cannot change; its space is outside the"
        " measured layouts, so its gains are extrapolated.",
    )  # fmt: skip


def answers_table(folder: Folder) -> Table:
    """Return the first answers of each run's last step, read from the runs' files."""
    rows: list[tuple[Cell, ...]] = []
    for path in sorted(folder.at("runs").glob("*.json")):
        try:
            found = msgspec.json.decode(path.read_bytes(), type=RunResult)
        except msgspec.DecodeError:
            continue  # of another version
        reward = found.steps[-1].reward if found.steps else None
        rows += [(path.stem, rounded(reward, 3), answer) for answer in found.answers[:2]]
    return Table(
        title="What the last step answered",
        columns=("run", "mean reward", "answer"),
        rows=tuple(rows),
        note="All figures of every step stand beside each run's file as lines of JSON.",
    )


def errors_table(records: Sequence[Record]) -> Table:
    """Return the cost model's errors on the published runs."""
    rows: list[tuple[Cell, ...]] = []
    for record in records:
        if record.case["verb"] != "fit":
            continue
        names = [m.name.rpartition(".")[0] for m in record.metrics if m.name.endswith(".largest")]
        for stem in dict.fromkeys(names):
            what, _, stage = stem.rpartition(".")
            mean, most = (metric(record, f"{stem}.{kind}") for kind in ("mean", "largest"))
            rows.append((_TOLD.get(what, what), stage, rounded(mean, 2), rounded(most, 1)))
    return Table(
        title="The cost model against the 73 distinct published runs",
        columns=("constants", "stage", "mean error %", "largest %"),
        rows=tuple(rows),
        note="Shipped and fitted-again constants have seen the runs; a left-out pair's have not.",
    )


_TOLD = {
    "error": "shipped",
    "error.plain": "the specification's form and constants",
    "refit": "fitted again",
}


def runs_table(records: Sequence[Record]) -> Table:
    """Return the real runs: stage times, losses, rewards."""
    rows: list[tuple[Cell, ...]] = []
    for record in records:
        if record.case["verb"] != "run" or metric(record, "step.time") is None:
            continue
        losses = [samples(record, f"loss.{name}")[-1] for name in ("actor", "critic")]
        digest = metric(record, "sequences.digest")
        times = [
            rounded(metric(record, f"{name}.time"))
            for name in ("generation", "switch", "inference", "training", "step")
        ]
        rows.append(
            (
                record.experiment, str(record.case.get("plan", "")), *times,
                f"{losses[0]:.6f}", f"{losses[1]:.6f}",
                rounded(metric(record, "reward.early")), rounded(metric(record, "reward.late")),
                f"{int(digest or 0):012x}",
            )
        )  # fmt: skip
    return Table(
        title="Really aligned on this machine's ranks",
        columns=(
            "experiment", "layouts, schedule, micro-batches", "generation s", "of it switch",
            "inference s", "training s", "step s", "last actor loss", "critic loss",
            "reward, first tenth", "last tenth", "sequences",
        ),
        rows=tuple(rows),
        note="Medians over the steps after the first; ranks share this machine's cores, so times"
        " compare stages, not systems. Runs of one task generate the same sequences (a digest of"
        " them is shown) and learn the same to rounding, whatever layouts and schedules.",
    )  # fmt: skip


def moved_table(records: Sequence[Record]) -> Table:
    """Return what the switch and the other engines' gathers moved, in the same runs."""
    rows: list[tuple[Cell, ...]] = []
    for record in records:
        engines = [m.name.split(".")[1] for m in record.metrics if m.name.endswith(".exact")]
        for engine in engines:
            got, said, time = (
                metric(record, f"moved.{engine}.{what}") for what in ("received", "planned", "time")
            )
            rows.append(
                (
                    record.experiment, engine, got and int(got), said and int(said),
                    rounded(time and 1e3 * time, 2),
                    "yes" if metric(record, f"moved.{engine}.exact") else "no",
                )
            )  # fmt: skip
    return Table(
        title="Three ways to get the generation shard, measured in the same run",
        columns=(
            "experiment", "engine", "bytes received by all ranks", "by plan or formula", "ms",
            "bit by bit right",
        ),
        rows=tuple(rows),
        note="Bytes are counted at the messages. A gather pads every rank's part to the largest"
        " and has the norms of every slice, which the formula leaves out.",
    )  # fmt: skip
