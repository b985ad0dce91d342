"""The verb `simulate`: the plan's services under the experiment's workload."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.artifact import Ask, Case, Done
from common.errors import InputError
from common.record import Metric
from helix.inputs.experiment import Experiment
from helix.inputs.traces import Trace
from helix.plan.methods import ANALYTIC
from helix.plan.plans import Plan
from helix.simulate.latencies import latency_metrics
from helix.simulate.metrics import Outcome, percentiles, pooled
from helix.simulate.service import serve, write_timelines
from helix.simulate.show import latency_table, machine_table

HALF = 0.5  # of a trace's rows: where fewer are played it is warned of
_log = logging.getLogger("helix")


def simulate(case: Case, plan: Plan, ask: Ask) -> Done:
    """Return throughput, latencies and how busy machines were; with a folder, the timelines."""
    experiment: Experiment = case.experiment
    if experiment.workload.timeline_s and not ask.folder:
        raise InputError(
            f"workload.timeline_s is {experiment.workload.timeline_s:g}, which asks for a file, but"
            " there is no folder for it; give one (out) or set it to 0"
        )
    served = serve(plan, experiment, case.seed)
    outcomes, trace = served.outcomes, served.trace
    rate, prompt_s, decode_s = pooled(list(outcomes.values()))
    metrics = (
        *latency_metrics("", rate, prompt_s, decode_s),
        *_counts(plan, outcomes),
        *_traced(trace),
    )
    _warn_of_full_caches(outcomes)
    files = list[Path]()
    if ask.folder and experiment.workload.timeline_s:
        files = write_timelines(plan, experiment, case.seed, ask.folder.at("timelines"))
    return Done(
        summary=f"{rate:.2f} decoded tokens/s; prompt p50 {percentiles(prompt_s)[2]:.2f} s, decode"
        f" p50 {percentiles(decode_s)[2]:.3f} s"
        + _analytic(plan)
        + (f"; {trace.told}" if trace else ""),
        metrics=metrics,
        plan=plan,
        files=tuple(files),
        shows=(machine_table(plan, outcomes), latency_table(metrics)),
        hints=(
            *(f"timeline, to open at https://ui.perfetto.dev: {path}" for path in files),
            *(trace.notes if trace else ()),
        ),
        value=outcomes,
    )


def _analytic(plan: Plan) -> str:
    return f"; {plan.profile}" if plan.profile == ANALYTIC else ""


def figure(plan: Plan, value: Any) -> Any:
    """Return the placement, and latencies where there are some, as a matplotlib Figure.

    `value` is what a simulation or a run has by service, None for a plan alone.
    """
    from helix.simulate.figure import draw

    return draw(plan, value or {})


def _counts(plan: Plan, outcomes: Mapping[str, Outcome]) -> list[Metric]:
    found = outcomes.values()
    return [
        Metric(name="plan.flow", value=plan.flow, unit="token/s"),
        Metric(name="events", value=sum(o.events for o in found), unit="1"),
        Metric(name="queries.finished", value=sum(o.finished for o in found), unit="1"),
        Metric(name="queries.rejected", value=sum(o.rejected for o in found), unit="1"),
        Metric(name="queries.most", value=sum(o.most_active for o in found), unit="1"),
    ]


def _traced(trace: Trace | None) -> list[Metric]:
    """Return the rows of a user's own trace, and where they went: read = kept + dropped."""
    if trace is None:
        return []
    kept = len(trace.arrivals)
    if kept < HALF * trace.rows:
        _log.warning("less than half of the trace is played: %s", trace.told)
    found = [
        Metric(name="trace.rows", value=trace.rows, unit="1"),
        Metric(name="trace.kept", value=kept, unit="1"),
    ]
    for why, number in trace.dropped.items():
        found.append(Metric(name=f"trace.dropped {why}", value=number, unit="1"))
    return found


def _warn_of_full_caches(outcomes: Mapping[str, Outcome]) -> None:
    full = [f"{name} {i}" for name, o in outcomes.items() for i in o.overflowed]
    if full:
        _log.warning("the KV cache of machine %s overflowed; offer less", ", ".join(full))
