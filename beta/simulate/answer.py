"""The verb `simulate`: the plan played on the test workload; who is served, when, and in time."""

from typing import Any, NamedTuple

from beta.inputs.experiment import Experiment
from beta.inputs.load import Loaded, load
from beta.inputs.workload import Workload
from beta.plan.placement import Timetable, verify
from beta.plan.plans import Plan, timetable_of
from beta.plan.show import plan_table, unplaced
from beta.plan.switches import resolve
from beta.simulate.fast import Outcome
from beta.simulate.play import play
from beta.simulate.statistics import Statistics, trimmed
from common.artifact import Ask, Case, Done
from common.errors import InputError
from common.record import Metric


class Played(NamedTuple):
    """What a workload says of a placement: simulated, or measured of a service."""

    workload: Workload
    outcome: Outcome
    statistics: Statistics


def simulate(case: Case, plan: Plan, ask: Ask) -> Done:
    """Play the plan by the experiment's simulator; InputError where it does not fit."""
    experiment: Experiment = case.experiment
    loaded = load(experiment, case.seed)
    timetable = timetable_of(plan, loaded.models)
    for placement in timetable.placements:
        verify(placement, loaded.models, experiment.cluster.cluster())
    played = play_on_test(experiment, timetable, loaded, case.seed)
    stats = played.statistics
    return Done(
        summary=summary_of(stats),
        metrics=played_metrics(stats),
        plan=plan,
        axes={"method": plan.method},
        shows=(plan_table(plan),),
        hints=(*unplaced(plan), *_trimmed(len(loaded.test), stats), *loaded.notes),
        value=played,
    )


def summary_of(stats: Statistics) -> str:
    """Return in a sentence how many were in time, and how long those took if there are any."""
    share = f"{100 * stats.goodput:.2f} % of {stats.requests} requests in time"
    if not stats.goodput:
        return f"{share}, so there is no latency to tell"
    return (
        f"{share}; those took {stats.latency_s:.3f} s on average, 99 % of them at most"
        f" {stats.p99_s:.3f} s"
    )


def _trimmed(sent: int, stats: Statistics) -> tuple[str, ...]:
    left = sent - stats.requests
    if not left:
        return ()
    return (f"not counted: {left} of {sent} requests at both ends (simulator.warm_up_s)",)


def play_on_test(
    experiment: Experiment, timetable: Timetable, loaded: Loaded, seed: int = 0
) -> Played:
    """Play placements on the test workload."""
    settings, placing = experiment.simulator, experiment.placement
    switches = resolve(placing.mode, placing.switches)
    outcome = play(loaded.test, timetable, loaded.models, settings, switches, seed=seed)
    return Played(loaded.test, outcome, trimmed(loaded.test, outcome, warm_up_s=settings.warm_up_s))


def played_metrics(statistics: Statistics) -> tuple[Metric, ...]:
    """Return what the test workload says."""
    s = statistics
    return (
        Metric(name="attainment", value=s.goodput, unit="1"),
        Metric(name="latency.mean", value=s.latency_s, unit="s"),
        Metric(name="latency.p99", value=s.p99_s, unit="s"),
        Metric(name="latency.with_refused", value=s.latency_with_refused_s, unit="s"),
        Metric(name="requests", value=s.requests, unit="1"),
        Metric(name="request.rate", value=s.request_rate, unit="1/s"),
    )


def figure(plan: Plan, played: Played | None) -> Any:
    """Return a matplotlib Figure of what became of the requests; InputError where none was sent."""
    from beta.simulate.figure import draw

    if played is None:
        raise InputError("no requests were sent, so there is nothing to draw")
    return draw(played.workload, played.outcome, [model.name for model in plan.models])
