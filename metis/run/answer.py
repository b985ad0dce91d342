"""The verb `run`: train by the plan on real ranks; measured stands beside predicted."""

from common.artifact import Ask, Case, Done
from common.log import progress
from common.ranks import choose_backend
from common.record import Metric
from metis.inputs.experiment import Experiment
from metis.plan.plans import Plan
from metis.run.launch import launch
from metis.run.settings import RunResult, Training
from metis.run.show import stages_table


def run(case: Case, plan: Plan, ask: Ask) -> Done:
    """Train the experiment's steps; RankError names a rank that failed."""
    experiment: Experiment = case.experiment
    settings, backend = experiment.training, choose_backend(ask.options.get("backend", ""))
    home = ask.folder and ask.folder.at("runs", experiment.name)
    training = Training(
        dtype=settings.dtype,
        learning_rate=settings.learning_rate,
        tokens=settings.tokens,
        checkpoint_every=settings.checkpoint_every,
        resume=settings.resume,
        timeout_s=settings.timeout_s,
    )
    with progress(settings.steps, f"train {experiment.name} on {plan.world_size} ranks") as advance:
        result = launch(
            plan,
            world_size=ask.options.get("world_size"),
            backend=backend,
            steps=settings.steps,
            seed=case.seed,
            out=home,
            training=training,
            on_step=lambda step, loss: advance(1),
        )
    metrics = run_metrics(plan, result)
    resumed = f" from step {result.first_step} on" if result.first_step else ""
    summary = (
        f"{len(result.losses)} steps{resumed} on {result.world_size} {backend} ranks: loss"
        f" {result.losses[0]:.4f} to {result.losses[-1]:.4f},"
        f" {result.median_iteration_ms:.1f} ms per iteration (predicted {plan.cost_ms:.1f} ms)"
    )
    files = (home / "run.json",) if home and (home / "run.json").is_file() else ()
    return Done(
        summary=summary,
        metrics=metrics,
        plan=plan,
        files=files,
        shows=(stages_table(metrics),),
        value=result.timeline,
    )


def run_metrics(plan: Plan, result: RunResult) -> tuple[Metric, ...]:
    """Return a run's figures, per stage beside the predicted ones."""
    metrics = [
        Metric(
            name="iteration.time",
            value=result.median_iteration_ms,
            unit="ms",
            samples=result.iteration_ms[1:],
            warmups=result.iteration_ms[:1],
        ),
        Metric(name="plan.cost", value=plan.cost_ms, unit="ms"),
        Metric(name="loss.first", value=result.losses[0], unit="nat"),
        Metric(name="loss.last", value=result.losses[-1], unit="nat"),
    ]
    for stage in result.stages:
        name = f"stage{stage.stage}"
        metrics += [
            Metric(name=f"{name}.execution", value=stage.measured_ms, unit="ms"),
            Metric(name=f"{name}.predicted", value=stage.predicted_ms, unit="ms"),
        ]
    return tuple(metrics)
