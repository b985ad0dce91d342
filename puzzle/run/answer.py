"""The verb `run`: align by the plan on real ranks; a log in the original's form grows with it."""

import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec

from common import files
from common.artifact import Ask, Case, Done
from common.log import progress
from common.provenance import is_first_rank
from common.ranks import choose_backend
from puzzle.inputs.experiment import Experiment
from puzzle.plan.answer import axes
from puzzle.plan.plans import Plan
from puzzle.run.launch import OnStep, launch
from puzzle.run.metrics import run_metrics, run_summary
from puzzle.run.settings import Job, RunResult, StepFigures
from puzzle.run.step_log import StepLines, StepLog, told
from puzzle.simulate.show import times_table


def run(case: Case, plan: Plan, ask: Ask) -> Done:
    """Do the experiment's steps; RankError names a rank that failed."""
    experiment: Experiment = case.experiment
    job = Job(
        plan=plan,
        ppo=experiment.ppo,
        running=experiment.running,
        seed=case.seed,
        backend=choose_backend(ask.options.get("backend", "")),
    )
    stem = ask.folder and ask.folder.at("runs", f"{experiment.name}.{plan.method}")
    log = StepLog(Path(f"{stem}.log"), plan, experiment.running) if stem else None
    lines = StepLines(Path(f"{stem}.jsonl")) if stem else None
    result = _aligned(experiment, job, (log, lines), ask)
    written = list[Path]()
    if stem and log and lines and is_first_rank():
        written.append(files.write(Path(f"{stem}.json"), msgspec.json.encode(result) + b"\n"))
        written += [path for path in (log.path, lines.path) if path.is_file()]
    metrics = run_metrics(result)
    return Done(
        summary=run_summary(plan, result),
        metrics=metrics,
        plan=plan,
        files=tuple(written),
        axes=axes(plan),
        shows=(times_table(metrics),),
        value=result,
    )


def _aligned(
    experiment: Experiment, job: Job, logs: Sequence[OnStep | None], ask: Ask
) -> RunResult:
    """Launch the ranks; write each step's lines, and say it where a user asked for this case."""
    steps, logger = experiment.running.steps, logging.getLogger("puzzle")
    with progress(steps, f"align {experiment.name}") as advance:

        def on_step(figures: StepFigures) -> None:
            for log in filter(None, logs):
                log(figures)
            if ask.own:
                logger.info(told(figures, steps))
            advance(1)

        return launch(job, world_size=ask.options.get("world_size"), on_step=on_step)
