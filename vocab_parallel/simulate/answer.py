"""The verb `simulate`: the schedule played; times, MFU and memory of every rank."""

from typing import Any

from common.artifact import Ask, Case, Done
from vocab_parallel.plan.plans import Plan
from vocab_parallel.plan.show import ranks_table
from vocab_parallel.simulate.memory import GIB
from vocab_parallel.simulate.predict import Prediction, metrics, predict

DRAWN = "drawn"
"""Mark of a suite's case: whether its trace and pictures are written; a user's own always are."""


def simulate(case: Case, plan: Plan, ask: Ask) -> Done:
    """Play the plan; with a folder, and where it is drawn, write its trace and pictures."""
    prediction, files, hints = predict(plan), (), ()
    if ask.folder and case.marks.get(DRAWN, ask.own):
        from vocab_parallel.simulate.export import export

        files = export(plan, prediction, case.experiment.name, ask.folder)
        hints = (f"open the trace at https://ui.perfetto.dev: {files[0]}",)
    return Done(
        summary=f"{prediction.iteration_s:.3f} s per iteration, MFU {100 * prediction.mfu:.2f} %,"
        f" {max(prediction.allocated) / GIB:.2f} GiB allocated",
        metrics=metrics(plan, prediction),
        plan=plan,
        files=files,
        axes={"chosen": plan.method},
        shows=(ranks_table(plan, prediction),),
        hints=hints,
        value=prediction,
    )


def figure(plan: Plan, prediction: Prediction | None) -> Any:
    """Return the beginning of the schedule, as predicted (or else by the plan), as a Figure."""
    from vocab_parallel.simulate.figure import draw_schedule

    return draw_schedule(plan, prediction or predict(plan))
