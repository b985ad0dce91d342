"""The verb `run`: train by the plan on real ranks, or replay single ranks on one device."""

import msgspec

from common import files
from common.artifact import Ask, Case, Done
from common.log import progress
from common.provenance import is_first_rank
from common.ranks import choose_backend
from vocab_parallel.inputs.experiment import Experiment
from vocab_parallel.plan.plans import Plan
from vocab_parallel.run.launch import launch
from vocab_parallel.run.measured import predicted, replay_ranks, run_metrics, run_summary
from vocab_parallel.run.settings import Job


def run(case: Case, plan: Plan, ask: Ask) -> Done:
    """Train the experiment's steps; RankError names a rank that failed."""
    experiment: Experiment = case.experiment
    backend = choose_backend(ask.options.get("backend", ""))
    if experiment.training.replay_rank is not None:
        return _replay(case, plan)
    training = experiment.training
    with progress(training.steps, f"train {experiment.name} by {plan.method}") as advance:
        result = launch(
            plan,
            training,
            world_size=ask.options.get("world_size"),
            backend=backend,
            seed=case.seed,
            on_step=lambda step, loss: advance(1),
        )
    written = ()
    if ask.folder and is_first_rank():
        path = ask.folder.at("runs", f"{experiment.name}.{plan.method}.json")
        written = (files.write(path, msgspec.json.encode(result) + b"\n"),)
    return Done(
        summary=run_summary(plan, result),
        metrics=run_metrics(plan, result),
        plan=plan,
        files=written,
        axes={"chosen": plan.method},
        value=predicted(plan, result) if result.losses else None,
    )


def _replay(case: Case, plan: Plan) -> Done:
    """Carry out single ranks' programs on one device (`training.replay_rank`)."""
    experiment: Experiment = case.experiment
    with progress(plan.schedule.ranks, f"replay {experiment.name} by {plan.method}") as advance:
        job = Job(plan, experiment.training, case.seed, "gloo")
        metrics, summary = replay_ranks(job, lambda: advance(1))
    return Done(summary=summary, metrics=metrics, plan=plan, axes={"chosen": plan.method})
