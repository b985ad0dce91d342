"""A run as a case: what was measured, beside what is simulated for the same plan and profile."""

import logging
from typing import Any

import numpy as np

from common.record import Metric
from helix.cases import Done, Folder, figures
from helix.inputs.experiment import Experiment
from helix.plan.plans import Plan
from helix.run.drive import Measured
from helix.run.run import Ran, run
from helix.simulate.metrics import percentiles, pooled
from helix.simulate.service import serve as simulate

log = logging.getLogger("helix")


def serve(experiment: Experiment, plan: Plan, folder: Folder, seed: int) -> Done:
    """Serve the plan and return the figures; simulated ones have `simulated.` before their name."""
    trace = folder.trace(experiment)
    ran = run(experiment, plan, seed, trace)
    files = (trace,) if experiment.serve.trace and trace.is_file() else ()
    metrics = _books(ran)
    if experiment.serve.load == "clients":
        return Done(tuple(metrics), plan, files, _said(ran))
    parts = list(ran.measured.values())
    measured = (
        sum(part.decode_tokens_per_s for part in parts),
        _together([part.prompt_s for part in parts]),
        _together([part.decode_s for part in parts]),
    )
    outcomes = simulate(plan, experiment, seed).outcomes
    simulated = pooled(list(outcomes.values()))
    metrics += [*figures("", measured), *figures("simulated.", simulated)]
    ratio = measured[0] / simulated[0] if simulated[0] else float("nan")
    if simulated[0]:
        metrics.append(Metric(name="measured.to.simulated", value=ratio, unit="1"))
    metrics += _load(ran, parts)
    for name in ran.measured if len(parts) > 1 else ():
        rates = (ran.measured[name].decode_tokens_per_s, outcomes[name].decode_tokens_per_s)
        for before, rate in zip(("", "simulated."), rates, strict=True):
            metrics.append(
                Metric(name=f"{before}decode.throughput.{name}", value=rate, unit="token/s")
            )
    summary = (
        f"{measured[0]:.2f} decoded tokens/s measured, {simulated[0]:.2f} simulated ({ratio:.2f});"
        f" prompt p50 {percentiles(measured[1])[2]:.2f} / {percentiles(simulated[1])[2]:.2f} s,"
        f" decode p50 {percentiles(measured[2])[2]:.3f} / {percentiles(simulated[2])[2]:.3f} s;"
        f" {_said(ran)}"
    )
    return Done(tuple(metrics), plan, files, summary)


def _together(parts: list[Any]) -> Any:
    return np.sort(np.concatenate(parts))


def _books(ran: Ran) -> list[Metric]:
    books = ran.books
    counts = {
        "sent": books.sent,
        "served": books.served,
        "rejected": books.rejected,
        "failed": books.failed,
        "cancelled": books.cancelled,
        "open": books.open(),
        "again": books.again,
    }
    return [Metric(name=f"requests.{name}", value=n, unit="1") for name, n in counts.items()]


def _load(ran: Ran, parts: list[Measured]) -> list[Metric]:
    batches, late = sum(f.batches for f in ran.facts), sum(f.late for f in ran.facts)
    busy = sum(f.busy_s for f in ran.facts)
    return [
        Metric(name="batches", value=batches, unit="1"),
        Metric(name="batches.late", value=late / max(batches, 1), unit="1"),
        Metric(
            name="late.time",
            value=sum(f.late_s for f in ran.facts) / max(busy, 1e-9),
            unit="1",
        ),
        Metric(name="kv.blocks.left", value=sum(f.blocks_used for f in ran.facts), unit="1"),
        Metric(name="queries.finished", value=sum(p.finished for p in parts), unit="1"),
        Metric(name="queries.rejected", value=sum(p.rejected for p in parts), unit="1"),
    ]


def _said(ran: Ran) -> str:
    books = ran.books
    return (
        f"{books.sent} requests: {books.served} served, {books.rejected} rejected,"
        f" {books.failed} failed, {books.cancelled} cancelled, {books.open()} open"
    )
