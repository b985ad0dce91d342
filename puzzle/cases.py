"""Do one case and keep its record: plan, simulate, fit or run an experiment by a method."""

import logging
import os
import resource
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from common import provenance
from common.case import case_id
from common.log import progress
from common.record import Metric, Origin, Record, RecordFile
from puzzle import planner
from puzzle.experiments import SUITES, Case, Verb, named
from puzzle.inputs.experiment import Experiment, MethodName
from puzzle.plan import plans
from puzzle.plan.plans import Plan
from puzzle.simulate.predict import Predicted, how_trained, predict
from puzzle.simulate.timeline import inference_timeline, training_timeline, write_trace

log = logging.getLogger("puzzle")

ARTIFACT = "puzzle"

OWN = "own"
"""Suite of what a user does one by one."""

GIB = 2**30

FUSED_AT_MOST = 1100
"""Largest stages x micro-batches for which a simulation also finds the fused order (seconds)."""

ORIGIN: dict[Verb, Origin] = {
    "plan": "planned",
    "simulate": "simulated",
    "fit": "simulated",
    "published": "paper",
    "run": "measured",
    "repeat": "measured",
}


class Done(NamedTuple):
    """What a case produced; `plan` is None where there is none, `failed` says what went wrong."""

    metrics: tuple[Metric, ...]
    files: tuple[Path, ...]
    plan: Plan | None
    summary: str
    candidates: tuple[planner.Candidate, ...] = ()
    failed: bool = False


class Folder(NamedTuple):
    """Where an output folder keeps this package's files."""

    out: Path

    @property
    def home(self) -> Path:
        """Folder of this artifact."""
        return self.out / ARTIFACT

    def records(self, suite: str) -> RecordFile:
        """Return the suite's records."""
        return RecordFile(self.home / f"{suite}.jsonl")

    def plan(self, experiment: Experiment, method: str) -> Path:
        """Return the plan file of an experiment and method."""
        return self.home / "plans" / f"{experiment.name}.{method}.json"

    def figure(self, name: str) -> Path:
        """Return a figure's path without suffix."""
        return self.home / "figures" / name


def make_plan(experiment: Experiment, method: str, folder: Folder) -> Done:
    """Search (`auto`) or take the layouts that the method says; write the plan file."""
    candidates: tuple[planner.Candidate, ...] = ()
    if method == "auto":
        candidates = tuple(planner.search(experiment))
        plan = candidates[0].plan
    else:
        plan = plans.make_plan(experiment, method)
    path = folder.plan(experiment, method)
    plans.write(plan, path)
    predicted = predict(plan, experiment.machines)
    return Done(figures(plan, predicted), (path,), plan, summary(plan, predicted), candidates)


def figures(plan: Plan, predicted: Predicted) -> tuple[Metric, ...]:
    """Return a prediction as metrics; per-rank figures are samples, rank by rank."""
    times = predicted.times
    found = [
        Metric(name="step.time", value=times.step, unit="s"),
        Metric(name="generation.time", value=times.generation, unit="s"),
        Metric(name="switch.time", value=times.switch, unit="s"),
        Metric(name="inference.time", value=times.inference, unit="s"),
        Metric(name="training.time", value=times.training, unit="s"),
        Metric(name="memory.peak", value=predicted.memory.peak / GIB, unit="GiBy"),
    ]
    if plan.switch is not None:
        found.append(_switch_metric("switch.received", plan.switch.received))
        found.append(_switch_metric("switch.kept", plan.switch.kept))
        found.append(Metric(name="switch.peak", value=plan.switch.peak, unit="By"))
    return tuple(found)


def _switch_metric(name: str, by_rank: tuple[int, ...]) -> Metric:
    return Metric(name=name, value=max(by_rank), unit="By", samples=tuple(map(float, by_rank)))


def summary(plan: Plan, predicted: Predicted) -> str:
    """Return a plan in one line."""
    times, choice = predicted.times, plan.choice
    moved = (
        f"switch of {max(plan.switch.received) / 1e9:.3g} GB in {times.switch:.3f} s"
        if plan.switch
        else "no switch"
    )
    return (
        f"train {choice.training}, generate {choice.generation}, {choice.schedule} training,"
        f" micro-batches {plan.work.micro_batch}/{plan.work.prefill_micro_batch}/"
        f"{plan.work.decode_micro_batch}: {times.step:.2f} s a step predicted (generation"
        f" {times.generation:.2f}, inference {times.inference:.2f}, training"
        f" {times.training:.2f} by {how_trained(plan)}, {moved}),"
        f" {predicted.memory.peak / GIB:.1f} GiB a device"
    )


def plan_for(experiment: Experiment, method: str, given: Path | None) -> Plan:
    """Return the given plan, or a method's."""
    if given is not None:
        return plans.read(given)
    if method == "auto":
        return planner.search(experiment)[0].plan
    return plans.make_plan(experiment, method)


def simulate(
    experiment: Experiment, method: str, folder: Folder, given: Path | None, *, draws: bool
) -> Done:
    """Predict a plan's stage times in closed form and play its pass lists beside."""
    plan = plan_for(experiment, method, given)
    c = experiment.machines.constants
    predicted = predict(plan, experiment.machines)
    lines = {"training": training_timeline(plan, c), "inference": inference_timeline(plan, c)}
    metrics = [*figures(plan, predicted)]
    for name, line in lines.items():
        metrics += [
            Metric(name=f"timeline.{name}", value=line.seconds, unit="s"),
            Metric(
                name=f"busy.{name}",
                value=100 * min(line.busy),
                unit="%",
                samples=tuple(100 * part for part in line.busy),
            ),
        ]
    layout = plan.choice.training
    if layout.pipeline * plan.work.local(layout.data) // plan.work.micro_batch <= FUSED_AT_MOST:
        seconds = training_timeline(plan, c, "fused").seconds
        metrics.append(Metric(name="timeline.fused", value=seconds, unit="s"))
    files: tuple[Path, ...] = ()
    if draws:
        path = folder.home / "traces" / f"{experiment.name}.{plan.method}.json"
        files = (write_trace(lines, path),)
    return Done(tuple(metrics), files, plan, summary(plan, predicted))


def run(
    experiment: Experiment,
    method: str,
    folder: Folder,
    given: Path | None,
    *,
    world_size: int | None = None,
    backend: str = "",
    seed: int = 0,
    tells: bool = False,
) -> Done:
    """Align for real by the plan; write the log in the original's format as steps finish.

    `tells`: say each step in a line too.
    """
    from puzzle.measured import choose_backend, run_metrics, run_summary
    from puzzle.run.launch import launch
    from puzzle.run.settings import Job, RankError, StepFigures
    from puzzle.step_log import StepLog, told

    plan, running = plan_for(experiment, method, given), experiment.running
    job = Job(plan, experiment.ppo, running, seed, choose_backend(backend))
    stem = folder.home / "runs" / f"{experiment.name}.{plan.method}"
    steps = StepLog(Path(f"{stem}.log"), plan, running)
    with progress(running.steps, f"align {experiment.name}") as advance:

        def on_step(figures: StepFigures) -> None:
            steps(figures)
            if tells:
                log.info(told(figures, running.steps))
            advance(1)

        try:
            result = launch(job, world_size=world_size, on_step=on_step)
        except RankError as error:
            return Done((), (), plan, str(error), failed=True)
    files: tuple[Path, ...] = ()
    if is_first_rank():
        stem.parent.mkdir(parents=True, exist_ok=True)
        Path(f"{stem}.json").write_bytes(msgspec.json.encode(result) + b"\n")
        files = (Path(f"{stem}.json"), *([steps.path] if steps.path.is_file() else []))
    return Done(run_metrics(result), files, plan, run_summary(plan, result))


def fit_case(method: str) -> Done:
    """Hold the cost model against the published runs; `auto` fits anew with pairs left out."""
    from puzzle.fitting import STAGES, calibration, left_out

    metrics = left_out() if method == "auto" else (*calibration(), *calibration("plain"))
    prefix = "left_out" if method == "auto" else "error"
    values = {metric.name: metric.value for metric in metrics}
    each = ", ".join(f"{stage} {values[f'{prefix}.{stage}.mean']:.1f} %" for stage in STAGES)
    return Done(metrics, (), None, f"mean relative errors: {each}")


def published_case() -> Done:
    """Compute the paper's figures from the published runs, faults of the logs mended."""
    from puzzle.publishing import published_metrics

    metrics = published_metrics()
    return Done(metrics, (), None, f"{len(metrics)} published figures")


def repeat(
    experiment: Experiment, method: MethodName, folder: Folder, *, backend: str, seed: int
) -> Done:
    """Repeat a run of the artifact by torchrun; its figures are read from the log it writes."""
    from puzzle.measured import choose_backend
    from puzzle.reproduction import Repeated, StartError, metrics, start

    plan, launched = plans.make_plan(experiment, method), Repeated(experiment, method, ())
    try:
        found = start(launched, folder.home / "repeated", choose_backend(backend), seed=seed)
    except StartError as error:
        return Done((), (), plan, str(error), failed=True)
    log_file = Path(found.path)
    told = f"{len(found.steps)} steps, {found.means()[-1]:.3f} s a step"
    return Done(metrics(found), (log_file,), plan, told)


def do(
    verb: Verb,
    experiment: Experiment,
    method: MethodName,
    folder: Folder,
    *,
    suite: str = OWN,
    seed: int = 0,
    given: Path | None = None,
    world_size: int | None = None,
    backend: str = "",
) -> tuple[Record, Done]:
    """Do a case, append its record and return both."""
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    if verb == "plan":
        done = make_plan(experiment, method, folder)
    elif verb == "simulate":
        done = simulate(experiment, method, folder, given, draws=suite == OWN)
    elif verb == "run":
        done = run(
            experiment,
            method,
            folder,
            given,
            world_size=world_size,
            backend=backend,
            seed=seed,
            tells=suite == OWN,
        )
    elif verb == "repeat":
        done = repeat(experiment, method, folder, backend=backend, seed=seed)
    elif verb == "fit":
        done = fit_case(method)
    else:
        done = published_case()
    config = config_of(verb, experiment, method, seed)
    record = Record(
        artifact=ARTIFACT,
        suite=suite,
        experiment=experiment.name,
        case=_axes(verb, method, done),
        origin=ORIGIN[verb],
        config=config,
        case_id=case_id(config),
        metrics=done.metrics,
        status="failed" if done.failed else "ok",
        error=done.summary if done.failed else None,
        seed=seed,
        started=started,
        wall_s=time.perf_counter() - clock,
        peak_rss=peak_rss(),
        provenance=provenance.save(folder.out),
        files={
            str(path.relative_to(folder.out)): sha256(path.read_bytes()).hexdigest()
            for path in done.files
        },
    )
    if is_first_rank():
        folder.records(suite).append(record)
    return record, done


def _axes(verb: Verb, method: str, done: Done) -> dict[str, str | int | float | bool]:
    axes: dict[str, str | int | float | bool] = {"verb": verb, "method": method}
    if done.plan is not None:
        choice, work = done.plan.choice, done.plan.work
        sizes = f"{work.micro_batch}/{work.prefill_micro_batch}/{work.decode_micro_batch}"
        axes["plan"] = f"{choice.training} to {choice.generation}, {choice.schedule}, {sizes}"
    return axes


def is_first_rank() -> bool:
    """Say whether this process is alone or rank 0 of a torchrun launch."""
    return os.environ.get("RANK", "0") == "0"


def peak_rss() -> int:
    """Return the peak resident memory of this process in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def config_of(verb: Verb, experiment: Experiment, method: str, seed: int) -> dict[str, Any]:
    """Return the whole configuration of a case."""
    return {
        "verb": verb,
        "method": method,
        "seed": seed,
        "experiment": msgspec.to_builtins(experiment),
    }


def run_suite(suite: str, folder: Folder, *, seed: int, again: bool) -> None:
    """Do every case of a suite that has no finished record yet."""
    cases = [(case, named()[case.experiment]) for case in SUITES[suite]]
    if suite == "full":
        from puzzle.reproduction import device_count, repeatable

        cases += repeatable(device_count())
    do_all(cases, folder, suite, seed=seed, again=again)


def do_all(
    cases: Sequence[tuple[Case, Experiment]],
    folder: Folder,
    suite: str,
    *,
    seed: int,
    again: bool,
    backend: str = "",
) -> None:
    """Do the cases that have no finished record yet, one after the other."""
    finished = set[tuple[str, str]]() if again else folder.records(suite).finished()
    todo = [
        (case, experiment)
        for case, experiment in cases
        if (
            experiment.name,
            case_id(config_of(case.verb, experiment, case.method, seed)),
        )
        not in finished
    ]
    skipped = len(cases) - len(todo)
    if skipped:
        log.info("%d finished cases are kept (--again redoes them)", skipped)
    with progress(len(todo), f"{ARTIFACT} {suite}") as advance:
        for case, experiment in todo:
            _, done = do(
                case.verb, experiment, case.method, folder, suite=suite, seed=seed, backend=backend
            )
            level = logging.DEBUG if case.verb == "simulate" else logging.INFO
            log.log(level, "%s %s (%s): %s", case.verb, experiment.name, case.method, done.summary)
            advance(1)
