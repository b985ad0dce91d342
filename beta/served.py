"""What a served case says: measured metrics, and what the simulators say of the same placement."""

import msgspec
import numpy as np

from beta import answer
from beta.inputs.experiment import Experiment
from beta.inputs.load import Loaded
from beta.inputs.playing import SimulatorSettings
from beta.plan import plans
from beta.plan.plans import Plan
from beta.run.launch import Measured, outcome_of
from beta.simulate.statistics import trimmed
from common.record import Metric

SIMULATORS = ("fast", "events")


def simulated(experiment: Experiment, plan: Plan, loaded: Loaded, seed: int) -> dict[str, float]:
    """Return the attainment that each simulator predicts for a plan."""
    timetable = plans.timetable_of(plan, loaded.models)
    found = dict[str, float]()
    for kind in SIMULATORS:
        settings: SimulatorSettings = msgspec.structs.replace(experiment.simulator, kind=kind)
        asked = msgspec.structs.replace(experiment, simulator=settings)
        found[kind] = answer.play_on_test(asked, timetable, loaded, seed).statistics.goodput
    return found


def metrics_of(
    experiment: Experiment, loaded: Loaded, measured: Measured, predicted: dict[str, float]
) -> tuple[Metric, ...]:
    """Return everything that a run is recorded with; `simulated.` marks what was not measured."""
    found = dict[str, tuple[float, str]]()
    if measured.sent is not None:
        found |= _of_load(experiment, loaded, measured)
        found |= {f"simulated.{kind}": (share, "1") for kind, share in predicted.items()}
    if measured.totals is not None:
        found |= {f"books.{k}": (v, "1") for k, v in measured.totals._asdict().items()}
        found["books.balanced"] = (float(measured.totals.balanced), "1")
    if measured.difference is not None:
        found["outputs.difference"] = (measured.difference, "1")
    if measured.scale is not None:
        found["admission.scale"] = (measured.scale, "1")
    if measured.slowest is not None:
        found["latency.over_profile"] = (measured.slowest, "1")
    found["kills"] = (measured.kills, "1")
    return tuple(Metric(name=name, value=v, unit=unit) for name, (v, unit) in found.items())


def _of_load(
    experiment: Experiment, loaded: Loaded, measured: Measured
) -> dict[str, tuple[float, str]]:
    assert measured.sent is not None
    assert measured.counts is not None
    sent, test = measured.sent, loaded.test
    stats = trimmed(test, outcome_of(sent, loaded), warm_up_s=experiment.simulator.warm_up_s)
    took = np.sort((sent.finish - test.arrival)[sent.status == 200])
    refused = (sent.finish - test.arrival)[sent.refused]
    found: dict[str, tuple[float, str]] = {
        "attainment": (stats.goodput, "1"),
        "latency.mean": (stats.latency_s, "s"),
        "latency.p99": (stats.p99_s, "s"),
        "requests": (stats.requests, "1"),
        "request.rate": (stats.request_rate, "1/s"),
        "client.lag.max": (float(sent.lag_s.max()), "s"),
    }
    if len(took):
        for share in (0.5, 0.9, 0.99):
            found[f"served.p{100 * share:g}"] = (float(took[int(share * len(took))]), "s")
    if len(refused):
        found["refused.max"] = (float(refused.max()), "s")
    late = lateness(experiment, loaded, measured)
    found["answers.after_deadline"] = (late, "s")
    return found | {f"client.{k}": (v, "1") for k, v in measured.counts._asdict().items()}


def lateness(experiment: Experiment, loaded: Loaded, measured: Measured) -> float:
    """Return by how much the latest answer of any kind came after its deadline, seconds.

    The deadline counts from when the request was really sent, not from when it was due.
    """
    assert measured.sent is not None
    slo = np.array([model.slo_s for model in loaded.models])[loaded.test.model]
    limit = np.where(np.isinf(slo), experiment.serve.timeout_s, slo)
    over = measured.sent.finish - loaded.test.arrival - measured.sent.lag_s - limit
    return max(float(over.max()), 0.0) if len(over) else 0.0


def summary_of(metrics: tuple[Metric, ...]) -> str:
    """Return a run in a sentence or two."""
    at = {metric.name: metric.value for metric in metrics}
    if "attainment" not in at:
        return (
            f"served {at.get('books.served', 0):.0f} of {at.get('books.received', 0):.0f} requests;"
            f" refused {at.get('books.rejected', 0):.0f}, failed {at.get('books.failed', 0):.0f}"
        )
    took = (
        f" served in {at['served.p50']:.3f} s (median), 99 % within {at['served.p99']:.3f} s;"
        if "served.p50" in at
        else ""
    )
    return (
        f"measured: {100 * at['attainment']:.2f} % of {at['requests']:.0f} requests in time"
        f" (simulated: fast {100 * at['simulated.fast']:.2f}, events"
        f" {100 * at['simulated.events']:.2f} %);{took} sent {at['client.sent']:.0f} = served"
        f" {at['client.served']:.0f} + refused {at['client.rejected']:.0f} + failed"
        f" {at['client.failed']:.0f} + unanswered {at['client.unanswered']:.0f}"
    )
