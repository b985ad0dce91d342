"""One point of a figure: place by a method and play the placement; nothing is written."""

import msgspec

from beta.inputs.examples import small
from beta.inputs.experiment import Experiment
from beta.inputs.load import load
from beta.paper.grid import SWEEPS
from beta.plan.answer import bound_metrics, place, placed_metrics, problem_of
from beta.simulate.answer import play_on_test, played_metrics
from common.artifact import Ask, Case, Done, with_field
from common.record import Metric


def point(case: Case, ask: Ask) -> Done:
    """Return everything that a point of a figure needs."""
    metrics = answer(case.experiment, case.seed)
    share = next(metric.value for metric in metrics if metric.name == "attainment")
    return Done(summary=f"{100 * share:.2f} % in time", metrics=metrics)


def answer(experiment: Experiment, seed: int = 0) -> tuple[Metric, ...]:
    """Place and play, and tell the bound where the experiment asks for it."""
    loaded = load(experiment, seed)
    solved = place(experiment, loaded)
    played = play_on_test(experiment, solved.timetable, loaded, seed)
    bound = bound_metrics(problem_of(experiment, loaded)) if experiment.placement.bound else ()
    return (*placed_metrics(solved), *played_metrics(played.statistics), *bound)


def warm() -> None:
    """Compile the kernels once, before workers would each, and before anything is timed."""
    tiny = with_field(SWEEPS["devices"](small(), 2), "placement.method", "mp-search")
    traffic = msgspec.structs.replace(tiny.traffic, duration_s=5.0)
    answer(msgspec.structs.replace(tiny, traffic=traffic))
