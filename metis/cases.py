"""Do one case and keep its record: plan, simulate or run an experiment by a method."""

import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import msgspec

from common import provenance
from common.case import case_id, to_toml
from common.errors import InputError
from common.log import progress
from common.record import Axis, Metric, Origin, Record, RecordFile
from metis.experiments import FULL_TRIALS, SUITES, Case, Verb, named
from metis.inputs.experiment import MEASURE, Experiment, Method
from metis.plan import plans
from metis.plan.plans import Plan

log = logging.getLogger("metis")

ARTIFACT = "metis"

OWN = "own"
"""Suite of what a user does one by one."""

ORIGIN: dict[Verb, Origin] = {"plan": "planned", "simulate": "simulated", "run": "measured"}


class Done(NamedTuple):
    """What a case produced."""

    metrics: tuple[Metric, ...]
    files: tuple[Path, ...]
    plan: Plan | None
    summary: str


class Folder(NamedTuple):
    """Where an output folder keeps Metis' files."""

    out: Path

    @property
    def home(self) -> Path:
        """Folder of this artifact."""
        return self.out / ARTIFACT

    def records(self, suite: str) -> RecordFile:
        """Return the suite's records."""
        return RecordFile(self.home / f"{suite}.jsonl")

    def plan(self, experiment: Experiment, method: Method) -> Path:
        """Return the plan file of an experiment and method."""
        return self.home / "plans" / f"{experiment.name}.{method}.json"

    def profiles(self, experiment: Experiment) -> Path:
        """Return the folder of this machine's profiles for the experiment's model."""
        return self.home / "profiles" / experiment.name

    def figure(self, name: str) -> Path:
        """Return a figure's path without suffix."""
        return self.home / "figures" / name


def make_plan(experiment: Experiment, method: Method, folder: Folder, *, backend: str = "") -> Done:
    """Search, write the plan file and return what was found; `Done.plan` may be None."""
    from metis.plan import methods

    cluster = experiment.load_cluster()
    if experiment.profile.source == MEASURE and not any(folder.profiles(experiment).glob("*.json")):
        from metis.measuring import measure_experiment

        measure_experiment(experiment, folder.profiles(experiment), backend=backend)
    profiles = experiment.load_profiles(cluster, folder.profiles(experiment))
    problem = methods.make_problem(experiment, cluster, profiles)
    outcome = methods.make_plan(experiment, problem, method)
    files: list[Path] = []
    path = folder.plan(experiment, method)
    if outcome.original_log:
        original = path.with_suffix(".log")
        original.parent.mkdir(parents=True, exist_ok=True)
        original.write_text(outcome.original_log)
        files.append(original)
    plan = outcome.plan
    if plan is not None:
        plan = msgspec.structs.replace(plan, question=question_id(experiment, method))
        plans.write(plan, path)
        files.append(path)
    metrics = tuple(
        Metric(name=f.name, value=f.value, unit=f.unit, samples=f.samples) for f in outcome.figures
    )
    return Done(metrics, tuple(files), plan, outcome.why_none if plan is None else outcome.summary)


def question_id(experiment: Experiment, method: Method) -> str:
    """Return what identifies the question that a plan answers."""
    asked = msgspec.structs.replace(experiment, training=type(experiment.training)(), about="")
    return case_id({"experiment": msgspec.to_builtins(asked), "method": method})


def write_launch(experiment: Experiment, plan: Plan, folder: Folder) -> Path:
    """Write the torchrun scripts and Megatron arguments of a plan and return their folder."""
    from metis.run.launch_files import write_launch_files

    nodes = experiment.load_cluster().in_sequence(plan.node_sequence)
    home = folder.home / "launch" / f"{experiment.name}.{plan.method}"
    home.mkdir(parents=True, exist_ok=True)
    (home / "experiment.toml").write_text(to_toml(experiment))
    write_launch_files(plan, [(node.host, node.device, node.devices) for node in nodes], home)
    return home


def plan_for(
    experiment: Experiment, method: Method, folder: Folder, given: Path | None, backend: str = ""
) -> Plan:
    """Return the given plan, the one written before for the same question, or a new one."""
    if given is not None:
        return plans.read(given)
    path = folder.plan(experiment, method)
    if path.is_file():
        plan = plans.read(path)
        if plan.question == question_id(experiment, method):
            return plan
        log.info("%s answers another question by now; planning again", path)
    if not is_first_rank():
        raise InputError(
            "under torchrun every rank reads the same plan; make it with the verb plan and give"
            " it with --plan FILE"
        )
    done = make_plan(experiment, method, folder, backend=backend)
    if done.plan is None:
        raise InputError(done.summary)
    plans.check(done.plan, str(path))
    return done.plan


def simulate(experiment: Experiment, method: Method, folder: Folder, given: Path | None) -> Done:
    """Play the plan as a timeline; write its trace and picture."""
    from common.figure import save, style
    from metis.simulate.figure import draw
    from metis.simulate.timeline import play
    from metis.simulate.trace import write_trace

    plan = plan_for(experiment, method, folder, given)
    timeline = play(plan)
    name = f"{experiment.name}.{plan.method}.pipeline"
    trace = folder.home / "traces" / f"{name}.json"
    write_trace(plan, timeline, trace)
    with style():
        pictures = save(draw(timeline), folder.figure(name))
    metrics = (
        Metric(name="iteration.time", value=timeline.iteration_ms, unit="ms"),
        Metric(name="plan.cost", value=plan.cost_ms, unit="ms"),
        Metric(name="pipeline.bubble", value=max(timeline.bubbles), unit="1"),
        *(Metric(name=f"cost.{k}", value=v, unit="ms") for k, v in plan.cost_terms.items()),
    )
    summary = (
        f"the pipeline takes {timeline.iteration_ms:.3f} ms, the closed form {plan.cost_ms:.3f} ms;"
        f" open {trace} at https://ui.perfetto.dev"
    )
    return Done(metrics, (trace, *pictures), plan, summary)


def run(
    experiment: Experiment,
    method: Method,
    folder: Folder,
    given: Path | None,
    *,
    world_size: int | None = None,
    backend: str = "",
    seed: int = 0,
) -> Done:
    """Train for real by the plan and set measured beside predicted times."""
    from metis.measuring import choose_backend
    from metis.run.launch import launch
    from metis.run.settings import RankError, Training

    backend = choose_backend(backend)
    plan = plan_for(experiment, method, folder, given, backend)
    settings = experiment.training
    training = Training(
        dtype=settings.dtype,
        learning_rate=settings.learning_rate,
        tokens=settings.tokens,
        timeout_s=settings.timeout_s,
    )
    home = folder.home / "runs" / experiment.name
    with progress(settings.steps, f"train {experiment.name} on {plan.world_size} ranks") as advance:
        try:
            result = launch(
                plan,
                world_size=world_size,
                backend=backend,
                steps=settings.steps,
                seed=seed,
                out=home,
                training=training,
                on_step=lambda step, loss: advance(1),
            )
        except RankError as error:
            return Done((), (), None, str(error))
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
        metrics += [
            Metric(name=f"stage{stage.stage}.execution", value=stage.measured_ms, unit="ms"),
            Metric(name=f"stage{stage.stage}.predicted", value=stage.predicted_ms, unit="ms"),
        ]
    summary = (
        f"{len(result.losses)} steps on {result.world_size} {backend} ranks: loss"
        f" {result.losses[0]:.4f} to {result.losses[-1]:.4f},"
        f" {result.median_iteration_ms:.1f} ms per iteration (predicted {plan.cost_ms:.1f} ms)"
    )
    return Done(tuple(metrics), (home / "run.json",), plan, summary)


def do(
    verb: Verb,
    experiment: Experiment,
    method: Method,
    folder: Folder,
    *,
    suite: str = OWN,
    seed: int = 0,
    given: Path | None = None,
    world_size: int | None = None,
    backend: str = "",
) -> tuple[Record, Done]:
    """Do a case, append its record and return both. A case without a plan is a failed record."""
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    if verb == "plan":
        done = make_plan(experiment, method, folder, backend=backend)
    elif verb == "simulate":
        done = simulate(experiment, method, folder, given)
    else:
        done = run(
            experiment, method, folder, given, world_size=world_size, backend=backend, seed=seed
        )
    failed = done.plan is None
    record = Record(
        artifact=ARTIFACT,
        suite=suite,
        experiment=experiment.name,
        case=axes(verb, experiment, method),
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
    """Return the peak resident memory of this process in bytes.

    Linux hands getrusage's figure on from the process that started this one, so its own is read.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def axes(verb: Verb, experiment: Experiment, method: Method) -> dict[str, Axis]:
    """Return what tables select records by."""
    return {"verb": verb, "method": method, "mode": experiment.search.mode}


def config_of(verb: str, experiment: Experiment, method: str, seed: int) -> dict[str, Any]:
    """Return the whole configuration of a case."""
    return {
        "verb": verb,
        "method": method,
        "seed": seed,
        "experiment": msgspec.to_builtins(experiment),
    }


def suite_cases(suite: str) -> list[tuple[Case, Experiment]]:
    """Return the cases of a suite with their experiments (`full` repeats searches to time them)."""
    cases = []
    for case in SUITES[suite]:
        experiment = named()[case.experiment]
        if suite == "full" and case.verb == "plan":
            search = msgspec.structs.replace(experiment.search, trials=FULL_TRIALS)
            experiment = msgspec.structs.replace(experiment, search=search)
        cases.append((case, experiment))
    return cases


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Remember Ctrl-C: one that falls into a finaliser is lost (numba's compiler has many)."""
    pressed = False

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        signal.default_int_handler(number, frame)

    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def run_suite(suite: str, folder: Folder, *, seed: int, again: bool) -> None:
    """Do every case of a suite that has no finished record yet."""
    finished = set() if again else folder.records(suite).finished()
    todo = [
        (case, experiment)
        for case, experiment in suite_cases(suite)
        if (experiment.name, case_id(config_of(case.verb, experiment, case.method, seed)))
        not in finished
    ]
    skipped = len(SUITES[suite]) - len(todo)
    if skipped:
        log.info("%d finished cases are kept (--again redoes them)", skipped)
    with interruptible() as interrupted, progress(len(todo), f"{ARTIFACT} {suite}") as advance:
        for case, experiment in todo:
            if interrupted():
                raise KeyboardInterrupt
            _, done = do(case.verb, experiment, case.method, folder, suite=suite, seed=seed)
            log.info("%s %s (%s): %s", case.verb, experiment.name, case.method, done.summary)
            advance(1)
