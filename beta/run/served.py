"""What a run says: measured metrics, and what the simulators say of the same placement."""

import msgspec
import numpy as np

from beta.inputs.experiment import Experiment
from beta.inputs.load import Loaded
from beta.inputs.playing import Simulator, SimulatorSettings
from beta.plan.plans import Plan, timetable_of
from beta.run.launch import Measured, outcome_of
from beta.simulate.answer import Played, play_on_test
from beta.simulate.statistics import trimmed
from common.record import Metric


def simulated(experiment: Experiment, plan: Plan, loaded: Loaded, seed: int) -> dict[str, float]:
    """Return the attainment that each simulator predicts for a plan.

    Where requests run together, batching takes the place of the fast one.
    """
    timetable = timetable_of(plan, loaded.models)
    batched = any(model.profile.batched for model in loaded.models)
    kinds: tuple[Simulator, ...] = ("batching" if batched else "fast", "events")
    found = dict[str, float]()
    for kind in kinds:
        settings: SimulatorSettings = msgspec.structs.replace(experiment.simulator, kind=kind)
        asked = msgspec.structs.replace(experiment, simulator=settings)
        found[kind] = play_on_test(asked, timetable, loaded, seed).statistics.goodput
    return found


def played(experiment: Experiment, loaded: Loaded, measured: Measured) -> Played | None:
    """Return what became of the requests as simulations tell it; None where none was sent."""
    if measured.sent is None:
        return None
    outcome = outcome_of(measured.sent, loaded)
    stats = trimmed(loaded.test, outcome, warm_up_s=experiment.simulator.warm_up_s)
    return Played(loaded.test, outcome, stats)


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
    whole = played(experiment, loaded, measured)
    assert whole is not None
    assert measured.sent is not None
    assert measured.counts is not None
    sent, test, stats = measured.sent, loaded.test, whole.statistics
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
    kinds = [name for name in at if name.startswith("simulated.")]
    predicted = ", ".join(f"{name.partition('.')[2]} {100 * at[name]:.2f}" for name in kinds)
    return (
        f"measured: {100 * at['attainment']:.2f} % of {at['requests']:.0f} requests in time"
        f" (simulated: {predicted} %);{took} sent {at['client.sent']:.0f} = served"
        f" {at['client.served']:.0f} + refused {at['client.rejected']:.0f} + failed"
        f" {at['client.failed']:.0f} + unanswered {at['client.unanswered']:.0f}"
    )
