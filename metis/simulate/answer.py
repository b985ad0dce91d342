"""The verb `simulate`: the plan played as a 1F1B timeline beside the closed form."""

from typing import Any

from common.artifact import Ask, Case, Done
from common.record import Metric
from metis.plan.plans import Plan
from metis.plan.show import plan_table
from metis.simulate.show import terms_table
from metis.simulate.timeline import Timeline, play
from metis.simulate.trace import write_trace


def simulate(case: Case, plan: Plan, ask: Ask) -> Done:
    """Play the plan; with a folder, write its trace and picture."""
    timeline, files, where = play(plan), (), ""
    if ask.folder:
        from common.figure import save, style

        stem = f"{case.experiment.name}.{plan.method}.pipeline"
        trace = ask.folder.at("traces", f"{stem}.json")
        write_trace(plan, timeline, trace)
        with style():
            pictures = save(figure(plan, timeline), ask.folder.at("figures", stem))
        files, where = (trace, *pictures), f"; open {trace} at https://ui.perfetto.dev"
    return Done(
        summary=f"the pipeline takes {timeline.iteration_ms:.3f} ms, the closed form"
        f" {plan.cost_ms:.3f} ms{where}",
        metrics=(
            Metric(name="iteration.time", value=timeline.iteration_ms, unit="ms"),
            Metric(name="plan.cost", value=plan.cost_ms, unit="ms"),
            Metric(name="pipeline.bubble", value=max(timeline.bubbles), unit="1"),
            *(Metric(name=f"cost.{k}", value=v, unit="ms") for k, v in plan.cost_terms.items()),
        ),
        plan=plan,
        files=files,
        shows=(plan_table(plan), terms_table(plan)),
        value=timeline,
    )


def figure(plan: Plan, timeline: Timeline | None) -> Any:
    """Return the timeline (or else the plan's) as a matplotlib Figure."""
    from metis.simulate.figure import draw

    return draw(timeline or play(plan))
