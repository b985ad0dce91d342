"""The verb `run`: serve the plan; what is measured stands beside what is simulated for it."""

from typing import Any

import numpy as np

from common.artifact import Ask, Case, Done
from common.errors import InputError
from common.record import Metric
from helix.inputs.experiment import Experiment
from helix.plan.plans import Plan
from helix.run.drive import Measured
from helix.run.run import Ran
from helix.run.run import run as serve
from helix.simulate.latencies import latency_metrics
from helix.simulate.metrics import Outcome, percentiles, pooled
from helix.simulate.service import serve as simulate
from helix.simulate.show import latency_table

Pooled = tuple[float, Any, Any]
"""Decoded tokens/s, and sorted prompt and decode latencies in seconds."""


def run(case: Case, plan: Plan, ask: Ask) -> Done:
    """Serve clients until a signal, or the experiment's own workload; with a folder, the trace.

    Raises CaseError where Ray does not start here, InputError for what cannot be served.
    """
    experiment: Experiment = case.experiment
    if experiment.serve.trace and not ask.folder:
        raise InputError(
            "serve.trace asks for a file, but there is no folder for it; give one (out)"
        )
    trace = ask.folder and ask.folder.at("traces", f"{experiment.name}.json")
    ran = serve(experiment, plan, case.seed, trace)
    metrics = _books(ran)
    said, shows, value = _said(ran), (), None
    if experiment.serve.load == "workload":
        outcomes = simulate(plan, experiment, case.seed).outcomes
        compared, summary = _compared(ran, outcomes)
        metrics, said, value = [*metrics, *compared], f"{summary}; {said}", ran.measured
        shows = (latency_table(metrics),)
    return Done(
        summary=said,
        metrics=tuple(metrics),
        plan=plan,
        files=(trace,) if trace and experiment.serve.trace and trace.is_file() else (),
        axes={"device": experiment.serve.device},
        shows=shows,
        value=value,
    )


def _compared(ran: Ran, outcomes: dict[str, Outcome]) -> tuple[list[Metric], str]:
    """Return what was measured beside what is simulated, whose names begin with `simulated.`."""
    parts = list(ran.measured.values())
    measured: Pooled = (
        sum(part.decode_tokens_per_s for part in parts),
        _sorted([part.prompt_s for part in parts]),
        _sorted([part.decode_s for part in parts]),
    )
    simulated = pooled(list(outcomes.values()))
    metrics = [*latency_metrics("", *measured), *latency_metrics("simulated.", *simulated)]
    ratio = measured[0] / simulated[0] if simulated[0] else float("nan")
    if simulated[0]:
        metrics.append(Metric(name="measured.to.simulated", value=ratio, unit="1"))
    metrics += [*_load(ran, parts), *_by_service(ran, outcomes)]
    medians = [percentiles(seconds)[2] for both in (measured, simulated) for seconds in both[1:]]
    return metrics, (
        f"{measured[0]:.2f} decoded tokens/s measured, {simulated[0]:.2f} simulated ({ratio:.2f});"
        f" prompt p50 {medians[0]:.2f} / {medians[2]:.2f} s, decode p50 {medians[1]:.3f} /"
        f" {medians[3]:.3f} s"
    )


def _by_service(ran: Ran, outcomes: dict[str, Outcome]) -> list[Metric]:
    """Return each service's own throughput where there are several."""
    found = list[Metric]()
    for name, part in ran.measured.items() if len(ran.measured) > 1 else ():
        rates = ("", part.decode_tokens_per_s), ("simulated.", outcomes[name].decode_tokens_per_s)
        for before, rate in rates:
            key = f"{before}decode.throughput.{name}"
            found.append(Metric(name=key, value=rate, unit="token/s"))
    return found


def _sorted(parts: list[Any]) -> Any:
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
