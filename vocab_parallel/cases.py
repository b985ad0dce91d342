"""Do one case and keep its record: plan, simulate or run an experiment by a method."""

import logging
import os
import resource
import sys
import time
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from common import provenance
from common.case import case_id
from common.errors import InputError
from common.log import progress
from common.record import Metric, Origin, Record, RecordFile
from vocab_parallel.choose import Choice, choose, compare
from vocab_parallel.experiments import SUITES, Case, Verb, named
from vocab_parallel.inputs.experiment import Experiment
from vocab_parallel.plan import plans
from vocab_parallel.plan.methods import METHODS
from vocab_parallel.plan.plans import Plan
from vocab_parallel.simulate.memory import GIB
from vocab_parallel.simulate.predict import Prediction, mfu, predict

log = logging.getLogger("vocab_parallel")

ARTIFACT = "vocab_parallel"

OWN = "own"
"""Suite of what a user does one by one."""

ORIGIN: dict[Verb, Origin] = {"plan": "planned", "simulate": "simulated", "run": "measured"}


class Done(NamedTuple):
    """What a case produced; `plan` is None where it failed."""

    metrics: tuple[Metric, ...]
    files: tuple[Path, ...]
    plan: Plan | None
    summary: str
    choices: tuple[Choice, ...] = ()
    prediction: Prediction | None = None


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
    """Compare all methods (`auto`) or plan one; write the plan file."""
    choices: list[Choice] = []
    if method == "auto":
        choices = compare(experiment)
        chosen = choose(experiment, choices)
        assert chosen.plan is not None
        plan, prediction = chosen.plan, chosen.prediction
    else:
        plan = plans.make_plan(experiment, method)
        prediction = predict(plan)
    assert prediction is not None
    plan = msgspec.structs.replace(plan, question=question_id(experiment, method))
    path = folder.plan(experiment, method)
    plans.write(plan, path)
    summary = (
        f"{plan.method}: {prediction.iteration_s:.3f} s per iteration, MFU"
        f" {100 * prediction.mfu:.1f} %, at most {max(prediction.reserved) / GIB:.1f} GiB a rank"
    )
    return Done(figures(plan, prediction), (path,), plan, summary, tuple(choices), prediction)


def question_id(experiment: Experiment, method: str) -> str:
    """Return what identifies the question that a plan answers."""
    asked = msgspec.structs.replace(experiment, training=type(experiment.training)(), about="")
    return case_id({"experiment": msgspec.to_builtins(asked), "method": method})


def figures(plan: Plan, prediction: Prediction) -> tuple[Metric, ...]:
    """Return a prediction as metrics; per-rank figures are the samples, rank by rank."""
    seconds = prediction.iteration_s
    return (
        Metric(name="iteration.time", value=seconds, unit="s"),
        Metric(name="mfu", value=100 * prediction.mfu, unit="%"),
        Metric(name="mfu.of_312", value=100 * mfu(plan, seconds, 312.0), unit="%"),
        Metric(name="mfu.of_320", value=100 * mfu(plan, seconds, 320.0), unit="%"),
        _most("memory.allocated", prediction.allocated),
        _most("memory.reserved", prediction.reserved),
        Metric(
            name="busy",
            value=100 * min(prediction.busy),
            unit="%",
            samples=tuple(100 * part for part in prediction.busy),
        ),
        Metric(
            name="live",
            value=max(prediction.live),
            unit="1",
            samples=tuple(map(float, prediction.live)),
        ),
    )


def _most(name: str, values: tuple[float, ...]) -> Metric:
    sizes = tuple(value / GIB for value in values)
    return Metric(name=name, value=max(sizes), unit="GiBy", samples=sizes)


def plan_for(experiment: Experiment, method: str, folder: Folder, given: Path | None) -> Plan:
    """Return the given plan, or a method's; `auto` takes what `plan` chooses."""
    if given is not None:
        return plans.read(given)
    if method in METHODS:
        return plans.make_plan(experiment, method)
    path = folder.plan(experiment, method)
    if path.is_file():
        plan = plans.read(path)
        if plan.question == question_id(experiment, method):
            return plan
    plan = choose(experiment, compare(experiment)).plan
    assert plan is not None
    return plan


def simulate(
    experiment: Experiment, method: str, folder: Folder, given: Path | None, *, draws: bool
) -> Done:
    """Play the plan; where it `draws`, write its trace and pictures."""
    plan = plan_for(experiment, method, folder, given)
    prediction = predict(plan)
    files: tuple[Path, ...] = ()
    if draws:
        from vocab_parallel.simulate.export import export

        files = export(plan, prediction, experiment.name, folder.home)
    summary = (
        f"{prediction.iteration_s:.3f} s per iteration, MFU {100 * prediction.mfu:.2f} %,"
        f" {max(prediction.allocated) / GIB:.2f} GiB allocated"
    )
    return Done(figures(plan, prediction), files, plan, summary, (), prediction)


def run(
    experiment: Experiment,
    method: str,
    folder: Folder,
    given: Path | None,
    *,
    world_size: int | None = None,
    backend: str = "",
    seed: int = 0,
) -> Done:
    """Train for real by the plan and set measured beside predicted times."""
    from vocab_parallel.measured import choose_backend, run_metrics, run_summary
    from vocab_parallel.run.launch import launch
    from vocab_parallel.run.settings import RankError

    chosen = choose_backend(backend)
    plan = plan_for(experiment, method, folder, given)
    training = experiment.training
    if training.replay_rank is not None:
        return replay(plan, experiment, seed)
    name = f"{experiment.name}.{plan.method}"
    with progress(training.steps, f"train {experiment.name} by {plan.method}") as advance:
        try:
            result = launch(
                plan,
                training,
                world_size=world_size,
                backend=chosen,
                seed=seed,
                on_step=lambda step, loss: advance(1),
            )
        except RankError as error:
            return Done((), (), None, str(error))
    path = folder.home / "runs" / f"{name}.json"
    if is_first_rank():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.encode(result) + b"\n")
    files = (path,) if is_first_rank() else ()
    return Done(run_metrics(plan, result), files, plan, run_summary(plan, result))


def replay(plan: Plan, experiment: Experiment, seed: int) -> Done:
    """Carry out single ranks' programs on one device (`training.replay_rank`)."""
    from vocab_parallel.measured import replay_ranks
    from vocab_parallel.run.settings import Job

    with progress(plan.schedule.ranks, f"replay {experiment.name} by {plan.method}") as advance:
        job = Job(plan, experiment.training, seed, "gloo")
        metrics, summary = replay_ranks(job, lambda: advance(1))
    return Done(metrics, (), plan, summary)


def do(
    verb: Verb,
    experiment: Experiment,
    method: str,
    folder: Folder,
    *,
    suite: str = OWN,
    seed: int = 0,
    given: Path | None = None,
    world_size: int | None = None,
    backend: str = "",
    draws: bool = True,
) -> tuple[Record, Done]:
    """Do a case, append its record and return both. A case without a plan is a failed record."""
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    if verb == "plan":
        done = make_plan(experiment, method, folder)
    elif verb == "simulate":
        done = simulate(experiment, method, folder, given, draws=draws)
    else:
        done = run(
            experiment, method, folder, given, world_size=world_size, backend=backend, seed=seed
        )
    failed = done.plan is None
    record = Record(
        artifact=ARTIFACT,
        suite=suite,
        experiment=experiment.name,
        case={"verb": verb, "method": method, "chosen": done.plan.method if done.plan else ""},
        origin=ORIGIN[verb],
        config=config_of(verb, experiment, method, seed),
        case_id=case_id(config_of(verb, experiment, method, seed)),
        metrics=done.metrics,
        status="failed" if failed else "ok",
        error=done.summary if failed else None,
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
    from vocab_parallel.experiments import DRAWN

    finished = set[tuple[str, str]]() if again else folder.records(suite).finished()
    todo: list[tuple[Case, Experiment]] = []
    for case in SUITES[suite]:
        experiment = named()[case.experiment]
        key = case_id(config_of(case.verb, experiment, case.method, seed))
        if (experiment.name, key) not in finished:
            todo.append((case, experiment))
    skipped = len(SUITES[suite]) - len(todo)
    if skipped:
        log.info("%d finished cases are kept (--again redoes them)", skipped)
    with progress(len(todo), f"{ARTIFACT} {suite}") as advance:
        for case, experiment in todo:
            drawn = case.experiment == DRAWN
            _, done = do(
                case.verb, experiment, case.method, folder, suite=suite, seed=seed, draws=drawn
            )
            log.log(
                logging.DEBUG if case.verb == "simulate" else logging.INFO,
                "%s %s (%s): %s",
                case.verb,
                experiment.name,
                case.method,
                done.summary,
            )
            advance(1)


def plan_of(done: Done) -> Plan:
    """Return a case's plan, or raise what went wrong for the user to read."""
    if done.plan is None:
        raise InputError(done.summary)
    return done.plan
