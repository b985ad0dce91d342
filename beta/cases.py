"""Do one case and keep its record: place, or place and play, an experiment by a method."""

import logging
import resource
import sys
import time
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from beta.inputs.experiment import MACHINE, Experiment
from beta.plan import plans
from beta.plan.plans import Plan
from beta.run.specs import Backend
from beta.sweeps import SUITES, Case, Verb, grids, suite_cases
from common import provenance
from common.case import case_id
from common.errors import InputError
from common.log import progress
from common.record import Axis, Metric, Origin, Record, RecordFile

log = logging.getLogger("beta")

ARTIFACT = "beta"

OWN = "own"
"""Suite of what a user does one by one."""

ORIGIN: dict[Verb, Origin] = {"plan": "planned", "simulate": "simulated", "run": "measured"}


class Done(NamedTuple):
    """What a case produced."""

    metrics: tuple[Metric, ...]
    plan: Plan
    files: tuple[Path, ...]
    summary: str


class Cost(NamedTuple):
    """What doing a case took."""

    started: str
    wall_s: float
    peak_rss: int


class Folder(NamedTuple):
    """Where an output folder keeps Beta's files."""

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

    def profile(self, experiment: Experiment) -> Path:
        """Return the file of this machine's profile for an experiment."""
        return self.home / "profiles" / f"{experiment.name}.csv"

    def figure(self, name: str) -> Path:
        """Return a figure's path without suffix."""
        return self.home / "figures" / name


def with_profile(experiment: Experiment, folder: Folder) -> Experiment:
    """Return the experiment with the file of this machine's profile, measured if not there yet."""
    if experiment.profile != MACHINE:
        return experiment
    path = folder.profile(experiment)
    if not path.is_file():
        from beta.measure import measure_experiment

        log.info("no profile of this machine yet; measuring")
        measure_experiment(experiment, path)
    return msgspec.structs.replace(experiment, profile=str(path))


def backend_of(wanted: str) -> Backend:
    """Return a backend by name; nccl where there is CUDA, gloo elsewhere, if none is named."""
    if wanted in ("gloo", "nccl"):
        return "gloo" if wanted == "gloo" else "nccl"
    if wanted:
        raise InputError(f"--backend is {wanted!r}, expected gloo or nccl")
    import torch

    return "nccl" if torch.cuda.is_available() else "gloo"


def make_plan(experiment: Experiment, method: str, folder: Folder, *, seed: int = 0) -> Done:
    """Place, write the plan file and return what was found."""
    from beta import answer
    from beta.inputs.load import load

    loaded = load(experiment, seed)
    solved = answer.place(experiment, method, loaded)
    plan = answer.plan_of(experiment, method, solved, loaded, seed)
    path = folder.plan(experiment, method)
    plans.write(plan, path)
    bound = answer.bound_metrics(answer.problem_of(experiment, loaded))
    summary = (
        f"{100 * plan.attainment:.2f} % of {len(loaded.train)} training requests in time (no"
        f" placement on these devices passes {100 * bound[0].value:.2f} %); found in"
        f" {solved.search_s:.2f} s"
    )
    return Done((*answer.placed_metrics(solved), *bound), plan, (path,), summary)


def plan_for(
    experiment: Experiment, method: str, folder: Folder, given: Path | None, seed: int
) -> Plan:
    """Return the given plan, the one written before for the same question, or a new one."""
    from beta.answer import question_id

    if given is not None:
        return plans.read(given)
    path = folder.plan(experiment, method)
    if path.is_file():
        plan = plans.read(path)
        if plan.question == question_id(experiment, method, seed):
            return plan
        log.info("%s answers another question by now; planning again", path)
    return make_plan(experiment, method, folder, seed=seed).plan


def simulate(
    experiment: Experiment, method: str, folder: Folder, given: Path | None, *, seed: int = 0
) -> Done:
    """Play a plan on the test workload."""
    from beta import answer
    from beta.inputs.load import load
    from beta.plan.placement import verify

    plan = plan_for(experiment, method, folder, given, seed)
    loaded = load(experiment, seed)
    timetable = plans.timetable_of(plan, loaded.models)
    for placement in timetable.placements:
        verify(placement, loaded.models, experiment.cluster.cluster())
    played = answer.play_on_test(experiment, timetable, loaded, seed)
    stats = played.statistics
    summary = (
        f"{100 * stats.goodput:.2f} % of {stats.requests} requests in time; those took"
        f" {stats.latency_s:.3f} s on average, 99 % of them at most {stats.p99_s:.3f} s"
    )
    return Done(answer.played_metrics(played), plan, (), summary)


def run(
    experiment: Experiment,
    method: str,
    folder: Folder,
    given: Path | None,
    *,
    seed: int = 0,
    backend: Backend = "gloo",
    world_size: int | None = None,
) -> Done:
    """Serve a plan on Ray and measure it; what the simulators say of it stands beside."""
    from beta import served
    from beta.inputs.load import load
    from beta.run.launch import serve

    plan = plan_for(experiment, method, folder, given, seed)
    needed = sum(group.op * group.pp for group in plan.periods[0].groups)
    if world_size is not None and world_size < needed:
        raise InputError(
            f"the plan needs {needed} devices, but --world-size is {world_size}; plan for"
            f" {world_size} by --set cluster.devices={world_size}"
        )
    loaded = load(experiment, seed)
    measured = serve(experiment, plan, loaded, backend=backend, seed=seed)
    predicted = served.simulated(experiment, plan, loaded, seed)
    metrics = served.metrics_of(experiment, loaded, measured, predicted)
    return Done(metrics, plan, (), served.summary_of(metrics))


def do(
    verb: Verb,
    experiment: Experiment,
    method: str,
    folder: Folder,
    *,
    seed: int = 0,
    given: Path | None = None,
    backend: Backend = "gloo",
    world_size: int | None = None,
) -> tuple[Record, Done]:
    """Do a user's case, append its record and return both."""
    started, clock = _now(), time.perf_counter()
    experiment = with_profile(experiment, folder)
    if verb == "plan":
        done = make_plan(experiment, method, folder, seed=seed)
    elif verb == "run":
        done = run(
            experiment,
            method,
            folder,
            given,
            seed=seed,
            backend=backend,
            world_size=world_size,
        )
    else:
        done = simulate(experiment, method, folder, given, seed=seed)
    cost = Cost(started, time.perf_counter() - clock, peak_rss())
    case = Case(verb, experiment, done.plan.method)
    record = record_of(case, done.metrics, cost, folder, suite=OWN, seed=seed)
    files = {
        str(path.relative_to(folder.out)): sha256(path.read_bytes()).hexdigest()
        for path in done.files
    }
    record = msgspec.structs.replace(record, files=files)
    folder.records(OWN).append(record)
    return record, done


def record_of(
    case: Case, metrics: tuple[Metric, ...], cost: Cost, folder: Folder, *, suite: str, seed: int
) -> Record:
    """Return the record of a case."""
    config = config_of(case, seed)
    return Record(
        artifact=ARTIFACT,
        suite=suite,
        experiment=case.experiment.name,
        case=axes(case),
        origin=ORIGIN[case.verb],
        config=config,
        case_id=case_id(config),
        metrics=metrics,
        seed=seed,
        started=cost.started,
        wall_s=cost.wall_s,
        peak_rss=cost.peak_rss,
        provenance=provenance.save(folder.out),
    )


def axes(case: Case) -> dict[str, Axis]:
    """Return what tables select records by."""
    experiment = case.experiment
    found: dict[str, Axis] = {
        "verb": case.verb,
        "method": case.method,
        "mode": experiment.placement.mode,
        "sweep": case.sweep,
        "x": case.x,
        "simulator": experiment.simulator.kind,
        "dispatch": experiment.simulator.dispatch,
        "stand_in": experiment.stand_in,
    }
    return found | {"stages": experiment.serve.stages} if case.verb == "run" else found


def config_of(case: Case, seed: int) -> dict[str, Any]:
    """Return the whole configuration of a case."""
    return {
        "verb": case.verb,
        "method": case.method,
        "sweep": case.sweep,
        "x": case.x,
        "seed": seed,
        "experiment": msgspec.to_builtins(case.experiment),
    }


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


class SuiteSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a suite is done: `quick --set processes=4`."""

    figures: str = ""
    """Names of experiments, by commas, to do instead of the suite's own."""
    processes: int = 0
    """0: one per core."""
    ray: str = ""
    """Address of a Ray cluster to do the cases on, such as auto or host:6379; empty: none."""

    def chosen(self) -> tuple[str, ...]:
        """Return the figures by name, checked."""
        names = tuple(name.strip() for name in self.figures.split(",") if name.strip())
        unknown = [name for name in names if name not in grids()]
        if unknown:
            raise InputError(f"no figure {', '.join(unknown)}; there are {', '.join(grids())}")
        return names


def run_suite(
    suite: str,
    folder: Folder,
    *,
    seed: int,
    again: bool,
    settings: SuiteSettings | None = None,
) -> None:
    """Do every case of a suite that has no finished record yet, on all cores or on Ray."""
    from beta.spread import cores, spread, spread_on_ray

    settings = settings or SuiteSettings()
    finished = set() if again else folder.records(suite).finished()
    chosen = settings.chosen()
    cases = suite_cases(suite, chosen)
    todo = [
        (case, seed)
        for case in cases
        if (case.experiment.name, case_id(config_of(case, seed))) not in finished
    ]
    if len(todo) < len(cases):
        log.info("%d finished cases are kept (--again redoes them)", len(cases) - len(todo))
    served = [task for task in todo if task[0].verb == "run"]
    todo = [task for task in todo if task[0].verb != "run"]
    processes = settings.processes or cores()
    if len(todo) > 1:
        place = f"Ray at {settings.ray}" if settings.ray else f"{processes} processes"
        log.info("%d cases of %s on %s", len(todo), ", ".join(chosen or SUITES[suite]), place)
        warm()
    results = (
        spread_on_ray(work, todo, settings.ray)
        if settings.ray and todo
        else spread(work, todo, processes)
    )
    with progress(len(todo), f"{ARTIFACT} {suite}") as advance:
        for (case, _), (metrics, cost) in results:
            record = record_of(case, metrics, cost, folder, suite=suite, seed=seed)
            folder.records(suite).append(record)
            log.debug("%s %s=%g %s", case.experiment.name, case.sweep, case.x, case.method)
            advance(1)
    for case, _ in served:  # one after the other: they are measured
        log.info("serving %s, %s %g, by %s", case.experiment.name, case.sweep, case.x, case.method)
        metrics, cost = serve_point(case, folder, seed)
        folder.records(suite).append(record_of(case, metrics, cost, folder, suite=suite, seed=seed))


def serve_point(case: Case, folder: Folder, seed: int) -> tuple[tuple[Metric, ...], Cost]:
    """Serve one point of a figure."""
    started, clock = _now(), time.perf_counter()
    experiment = with_profile(case.experiment, folder)
    done = run(experiment, case.method, folder, None, seed=seed)
    return done.metrics, Cost(started, time.perf_counter() - clock, peak_rss())


def work(task: tuple[Case, int]) -> tuple[tuple[Metric, ...], Cost]:
    """Place and play one point of a figure."""
    from beta.answer import answer

    case, seed = task
    started, clock = _now(), time.perf_counter()
    metrics = answer(case.experiment, case.method, seed)
    return metrics, Cost(started, time.perf_counter() - clock, peak_rss())


def warm() -> None:
    """Compile the kernels once, before workers would each, and before anything is timed."""
    from beta.answer import answer
    from beta.experiments import named
    from beta.sweeps import SWEEPS

    tiny = SWEEPS["devices"](named()["small"], 2)
    traffic = msgspec.structs.replace(tiny.traffic, duration_s=5.0)
    answer(msgspec.structs.replace(tiny, traffic=traffic), "mp-search")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def suite_of(name: str) -> str:
    """Return a suite's name, checked."""
    if name not in (*SUITES, OWN):
        raise InputError(f"no suite {name!r}; expected one of {', '.join((*SUITES, OWN))}")
    return name
