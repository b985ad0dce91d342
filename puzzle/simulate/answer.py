"""The verb `simulate`: a plan's stages in closed form, its pass lists played in time beside."""

from pathlib import Path
from typing import Any

from common.artifact import Ask, Case, Done
from common.errors import InputError
from common.record import Metric
from puzzle.inputs.experiment import Experiment
from puzzle.plan.answer import axes, figures, summary
from puzzle.plan.plans import Plan
from puzzle.simulate.predict import predict
from puzzle.simulate.rates import Rates, rates_of
from puzzle.simulate.show import times_table
from puzzle.simulate.timeline import Timeline, inference_timeline, training_timeline
from puzzle.simulate.trace import write_trace

FUSED_AT_MOST = 1100
"""Largest stages x micro-batches for which a simulation also finds the fused order (seconds)."""


def simulate(case: Case, plan: Plan, ask: Ask) -> Done:
    """Predict a plan's stage times; a user's own case also writes a trace and a picture."""
    experiment: Experiment = case.experiment
    on, predicted = rates_of(plan, experiment.machines), predict(plan, experiment.machines)
    lines = {"training": training_timeline(plan, on), "inference": inference_timeline(plan, on)}
    metrics = (*figures(plan, predicted), *_played(lines), *_fused(plan, on))
    files, hints = list[Path](), list[str]()
    if ask.folder and ask.own:
        from common.figure import save, style

        stem = f"{experiment.name}.{plan.method}"
        trace = write_trace(lines, ask.folder.at("traces", f"{stem}.json"))
        with style():
            pictures = save(figure(plan, lines), ask.folder.at("figures", f"{stem}.passes"))
        files += [trace, *pictures]
        hints.append(f"open the trace at https://ui.perfetto.dev: {trace}")
    return Done(
        summary=summary(plan, predicted),
        metrics=metrics,
        plan=plan,
        files=tuple(files),
        axes=axes(plan),
        shows=(times_table(metrics),),
        hints=tuple(hints),
        value=lines,
    )


def figure(plan: Plan, value: Any) -> Any:
    """Return a simulation's pass lists, or a run's stage times and rewards, as a Figure.

    InputError for a plan alone, whose passes have no times yet.
    """
    if value is None:
        raise InputError("a plan alone has nothing to draw; simulate or run it")
    if isinstance(value, dict):
        from puzzle.simulate.figure import draw

        return draw(value)
    from puzzle.run.figure import draw as draw_run

    return draw_run(value)


def _played(lines: dict[str, Timeline]) -> list[Metric]:
    """Return each timeline's length, and the part of it that its ranks compute."""
    found = list[Metric]()
    for name, line in lines.items():
        busy = tuple(100 * part for part in line.busy)
        found += [
            Metric(name=f"timeline.{name}", value=line.seconds, unit="s"),
            Metric(name=f"busy.{name}", value=min(busy), unit="%", samples=busy),
        ]
    return found


def _fused(plan: Plan, on: Rates) -> list[Metric]:
    """Return the fused schedule's time beside the plan's own, where its order is soon found."""
    layout, work = plan.choice.training, plan.work
    if not plan.critic_learns:
        return []
    if layout.pipeline * work.local(layout.data) // work.micro_batch > FUSED_AT_MOST:
        return []
    seconds = training_timeline(plan, on, "fused").seconds
    return [Metric(name="timeline.fused", value=seconds, unit="s")]
