"""The tables of Helix's report section, from records."""

from collections.abc import Sequence

from common.page import Table
from common.record import Record, find, metric
from helix.paper.published import deep_dive, milp_incumbents, printed
from helix.paper.replays import MODES, PLACINGS, REPLAYS, SCHEDULINGS, mended
from helix.simulate.latencies import PERCENTILES

Cell = str | int | float | bool | None


def throughput(records: Sequence[Record]) -> Table:
    """Return the systems of sections 6.3 to 6.5 beside what the artifact prints."""
    rows = list[tuple[Cell, ...]]()
    for where, model, system in REPLAYS:
        cells: list[Cell] = [f"{where}, {model}", system]
        for mode in MODES:
            record = find(records, f"{where}-{model}-{system}-{mode}")
            theirs = printed(where, model, system, mode)
            ours = metric(record, "decode.throughput")
            cells += [theirs and theirs.decode, None if ours is None else round(ours, 2)]
        if cells[3] is not None or cells[5] is not None:
            rows.append(tuple(cells))
    return Table(
        title="Decoded tokens/s with the artifact's placements, simulated",
        columns=(
            "cluster, model", "system", "offline: printed", "ours", "online: printed", "ours",
        ),
        rows=tuple(rows),
        note="Printed: README of the artifact, sections 6.3 to 6.5. Ours: its placements, loads and"
        " faults (compat) in our simulator. Systems are offered different loads online.",
    )  # fmt: skip


def latencies(records: Sequence[Record]) -> Table:
    """Return every percentile that the artifact prints beside ours."""
    rows = list[tuple[Cell, ...]]()
    for where, model, system in REPLAYS:
        record = find(records, f"{where}-{model}-{system}-online")
        theirs = printed(where, model, system, "online")
        if record is None or theirs is None:
            continue
        for phase, values in (("prompt", theirs.prompt_s), ("decode", theirs.decode_s)):
            ours = [metric(record, f"{phase}.{name}") for name in PERCENTILES]
            pairs = zip(values, ours, strict=True) if values else ()
            cells = [f"{a:.2f} / {b:.2f}" for a, b in pairs if b is not None]
            rows.append((f"{where}, {model}", system, phase, *cells))
    return Table(
        title="Latencies online in seconds: printed / ours",
        columns=("cluster, model", "system", "phase", *PERCENTILES),
        rows=tuple(row for row in rows if len(row) == 3 + len(PERCENTILES)),
        note="A decode's latency is that of one token. Printed: README of the artifact.",
    )


def found(records: Sequence[Record]) -> Table:
    """Return our own placements beside the artifact's at the same load."""
    rows = list[tuple[Cell, ...]]()
    for where, model in dict.fromkeys((w, m) for w, m, _ in REPLAYS):
        name = f"{where}-{model}-search"
        for mode in MODES:
            ours = find(records, f"{name}-{mode}")
            theirs = find(records, f"{where}-{model}-helix-{mode}")
            if ours is None:
                continue
            rate, base = metric(ours, "decode.throughput"), metric(theirs, "decode.throughput")
            more = 100 * (rate / base - 1) if rate and base else None
            rows.append(
                (
                    f"{where}, {model}, {mode}",
                    _short(base),
                    _short(rate),
                    _short(more, 3),
                    *(_short(metric(r, f"{p}.p50"), 3) for p in ("prompt", "decode")
                      for r in (theirs, ours)),
                )
            )  # fmt: skip
    return Table(
        title="Placements of our own search, simulated",
        columns=(
            "question", "tokens/s: Helix", "ours", "more, %", "prompt p50, s: Helix", "ours",
            "decode p50, s: Helix", "ours",
        ),
        rows=tuple(rows),
        note="Both simulated here, on the same requests, which the search has not seen: it is"
        " tuned on lengths drawn from another seed.",
    )  # fmt: skip


def deep_dives(records: Sequence[Record]) -> Table:
    """Return sections 6.6 and 6.7: one placement rule or one scheduler exchanged."""
    placings = [(w, f"{w}-placement-{s}", "6.6", s) for w in ("single", "geo") for s in PLACINGS]
    names = {"maxflow": "helix"}
    schedulings = [("geo", f"geo-scheduling-{s}", "6.7", names.get(s, s)) for s in SCHEDULINGS]
    rows = list[tuple[Cell, ...]]()
    for where, experiment, section, system in [*placings, *schedulings]:
        record = find(records, experiment)
        if record is None:
            continue
        # The artifact simulates these on the regions alone, and serves them on the single cluster.
        theirs = deep_dive(section, system) if where == "geo" else None
        served = deep_dive(section, system, "prototype") if where == "single" else None
        rows.append(
            (
                f"{section}, {where}", system, theirs and theirs.decode,
                _short(metric(record, "decode.throughput")), served and served.decode,
                _short(metric(record, "prompt.p50"), 3), _short(metric(record, "decode.p50"), 3),
            )
        )  # fmt: skip
    return Table(
        title="Placement and scheduling exchanged one at a time, LLaMA-2 70B offline, tokens/s",
        columns=(
            "section, cluster", "placement or scheduler", "simulated: printed", "ours",
            "served: printed", "prompt p50, s", "decode p50, s",
        ),
        rows=tuple(rows),
        note="Served: the artifact's prototype on GPUs, printed for the single cluster. 6.6 has"
        " Helix's scheduler on each placement, 6.7 each scheduler on one placement of Helix.",
    )  # fmt: skip


def faults(records: Sequence[Record]) -> Table:
    """Return what each fault of the original is worth in a run that it matters to."""
    rows = list[tuple[Cell, ...]]()
    for one in mended():
        right, base = find(records, one.right.name), find(records, one.base.name)
        pairs = [
            (metric(base, name), metric(right, name))
            for name in ("decode.throughput", "prompt.p50", "decode.p50")
        ]
        ours, mend = pairs[0]
        if not ours or mend is None:
            continue
        cells = [_short(value) for pair in pairs for value in pair]
        rows.append((one.what, one.base.name, *cells[:2], _short(100 * (mend / ours - 1), 3),
                     *cells[2:]))  # fmt: skip
    return Table(
        title="What each fault of the original is worth, simulated",
        columns=(
            "fault", "run", "tokens/s: as published", "put right", "change, %",
            "prompt p50, s: as published", "put right", "decode p50, s: as published", "put right",
        ),
        rows=tuple(rows),
        note="Each put right by itself (workload.right, cluster.bandwidth_scale,"
        " search.calibration, search.split); the others stay as in the original.",
    )  # fmt: skip


def flows(records: Sequence[Record]) -> Table:
    """Return the flow objective by solver beside what the artifact's solver found."""
    rows = list[tuple[Cell, ...]]()
    for record in records:
        if record.case["verb"] != "plan" or record.case["objective"] == "simulated":
            continue
        theirs = milp_incumbents(record.experiment)
        rows.append(
            (
                record.experiment, str(record.case["method"]),
                _short(metric(record, "plan.flow"), 6), _short(metric(record, "plan.bound"), 6),
                _short(metric(record, "plan.time"), 3),
                theirs[-1][1] if theirs else None, theirs[-1][0] if theirs else None,
            )
        )  # fmt: skip
    return Table(
        title="The flow as the objective, tokens/s",
        columns=(
            "experiment", "method", "ours", "bound", "time, s", "Gurobi: published", "after, s",
        ),
        rows=tuple(rows),
        note="Published: logs of the artifact, Gurobi with an academic licence on 14 cores; its"
        " 24-machine problems were never proved. Ours: on this machine, without a licence.",
    )  # fmt: skip


def placements(records: Sequence[Record]) -> Table:
    """Return what every placing found, with its bound and its work."""
    rows = [
        (
            record.experiment,
            str(record.case["method"]),
            str(record.case["objective"]),
            _short(metric(record, "plan.flow"), 6),
            _short(metric(record, "plan.bound"), 6),
            _short(metric(record, "plan.estimate")),
            _short(metric(record, "plan.simulated")),
            metric(record, "plan.evaluations"),
            metric(record, "plan.simulations"),
            record.seed,
            _short(metric(record, "plan.time"), 3),
        )
        for record in records
        if record.case["verb"] == "plan" and record.case["objective"] == "simulated"
    ]
    return Table(
        title="Placements found, planned",
        columns=(
            "experiment", "method", "objective", "flow, tokens/s", "bound", "decode estimate",
            "simulated in the search", "placements evaluated", "simulated", "seed", "time, s",
        ),
        rows=tuple(rows),
        note="The bound is on the flow of any placement: what the machines can compute, links left"
        " out. A placement of less flow may serve more: latency and KV caches bound the service.",
    )  # fmt: skip


def served(records: Sequence[Record]) -> Table:
    """Return what was really served beside what is simulated for the same plan and profile."""
    rows = list[tuple[Cell, ...]]()
    for record in records:
        if record.case["verb"] != "run" or metric(record, "measured.to.simulated") is None:
            continue
        cells: list[Cell] = [record.experiment]
        for name in ("decode.throughput", "prompt.p50", "prompt.p95", "decode.p50", "decode.p95"):
            both = (metric(record, name), metric(record, f"simulated.{name}"))
            cells.append(" / ".join(f"{value:.3g}" for value in both if value is not None))
        cells.append(_short(metric(record, "measured.to.simulated"), 3))
        cells.append(_short(100 * (metric(record, "batches.late") or 0.0), 2))
        cells += [metric(record, f"requests.{name}") for name in ("sent", "failed", "again")]
        rows.append(tuple(cells))
    return Table(
        title="Really served on played machines: measured / simulated",
        columns=(
            "experiment", "decoded tokens/s", "prompt p50, s", "prompt p95, s", "decode p50, s",
            "decode p95, s", "ratio", "late batches, %", "requests", "failed", "begun again",
        ),
        rows=tuple(rows),
        note="Six Ray workers on this machine, a small LLaMA with random weights. Each plays a"
        " machine several times slower than this one by ending its batches when the profile,"
        " measured here, says; a late batch took longer than that.",
    )  # fmt: skip


def _short(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else float(f"{value:.{digits}g}")
