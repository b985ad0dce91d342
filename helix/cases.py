"""Do one case and keep its record: place, or place and simulate, an experiment by a method."""

import logging
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from common import provenance
from common.case import case_id
from common.errors import InputError
from common.log import progress
from common.record import Axis, Metric, Origin, Record, RecordFile
from helix.experiments import SUITES, Verb, named
from helix.inputs.experiment import HERE, Experiment, Method, Objective
from helix.plan import plans
from helix.plan.plans import Plan

if TYPE_CHECKING:
    from helix.simulate.metrics import Outcome
    from helix.simulate.system import Floats

log = logging.getLogger("helix")

ARTIFACT = "helix"

OWN = "own"
"""Suite of what a user does one by one."""

ORIGIN: dict[Verb, Origin] = {"plan": "planned", "simulate": "simulated", "run": "measured"}
PERCENTILES = ("p5", "p25", "p50", "p75", "p95")
TUNING = 1
"""Added to the seed for the requests a search is judged by, so that results are held out."""


class Done(NamedTuple):
    """What a case produced."""

    metrics: tuple[Metric, ...]
    plan: Plan
    files: tuple[Path, ...]
    summary: str
    outcomes: "Mapping[str, Outcome]" = MappingProxyType({})
    """Of a simulation, by service."""


class Folder(NamedTuple):
    """Where an output folder keeps Helix's files."""

    out: Path

    @property
    def home(self) -> Path:
        """Folder of this artifact."""
        return self.out / ARTIFACT

    def records(self, suite: str) -> RecordFile:
        """Return the suite's records."""
        return RecordFile(self.home / f"{suite}.jsonl")

    def plan(self, experiment: Experiment) -> Path:
        """Return the plan file of an experiment's question."""
        return self.home / "plans" / f"{question_name(experiment)}.json"

    def profiles(self, experiment: Experiment) -> Path:
        """Return the folder of this machine's profile for a model and kinds of machines."""
        if experiment.profile.source != HERE:
            return self.home / "profiles" / experiment.name
        asked = (experiment.model, experiment.profile, experiment.serve.threads)
        return self.home / "profiles" / f"{experiment.model.name}-{case_id(asked)}"

    def trace(self, experiment: Experiment) -> Path:
        """Return the file of a run's trace."""
        return self.home / "traces" / f"{experiment.name}.json"

    @property
    def timelines(self) -> Path:
        """Folder of what happened when in simulations."""
        return self.home / "timelines"

    def figure(self, name: str) -> Path:
        """Return a figure's path without suffix."""
        return self.home / "figures" / name


def question_name(experiment: Experiment) -> str:
    """Return the plan file's stem: questions that differ in the workload only share a plan."""
    return f"{experiment.model.name}-{experiment.search.method}-{question_id(experiment)}"


def question_id(experiment: Experiment) -> str:
    """Return what identifies the question that a plan answers; the workload is not part of it."""
    asked = msgspec.to_builtins(experiment)
    parts = {key: asked[key] for key in ("model", "cluster", "profile", "search")}
    return case_id(parts)


def with_method(
    experiment: Experiment, method: Method | None, objective: Objective | None
) -> Experiment:
    """Return the experiment with another method or objective."""
    search = experiment.search
    search = msgspec.structs.replace(
        search, method=method or search.method, objective=objective or search.objective
    )
    return msgspec.structs.replace(experiment, search=search)


def make_plan(experiment: Experiment, folder: Folder, seed: int) -> Done:
    """Place the layers, write the plan file and return what was found."""
    from helix.plan.methods import ask, make_plan
    from helix.simulate.service import offline_rate

    question, search = ask(experiment), experiment.search
    units = search.chains + (search.simulations if search.objective == "simulated" else 0)
    total = units if search.method == "search" else 0
    with progress(total, f"place {experiment.name}") as advance:
        plan = make_plan(
            experiment,
            search.method,
            search.objective,
            seed,
            lambda one, draw: offline_rate(
                one, question.cluster, question.model, question.profiles, experiment.workload,
                seed + TUNING + draw,
            ),
            advance,
        )  # fmt: skip
    plan = msgspec.structs.replace(plan, question=question_id(experiment))
    path = folder.plan(experiment)
    plans.write(plan, path)
    metrics = [
        Metric(name="plan.flow", value=plan.flow, unit="token/s"),
        Metric(name="plan.bound", value=plan.bound, unit="token/s"),
        Metric(name="plan.evaluations", value=plan.evaluations, unit="1"),
        Metric(name="plan.simulations", value=plan.simulations, unit="1"),
        Metric(name="plan.time", value=plan.seconds, unit="s"),
    ]
    if plan.estimate is not None:
        metrics.append(Metric(name="plan.estimate", value=plan.estimate, unit="token/s"))
    if plan.simulated is not None:
        metrics.append(Metric(name="plan.simulated", value=plan.simulated, unit="token/s"))
    return Done(tuple(metrics), plan, (path,), summary_of(plan))


def summary_of(plan: Plan) -> str:
    """Return a plan in one sentence."""
    said = f"{plan.method}: flow {plan.flow:.2f} tokens/s, bound {plan.bound:.2f}"
    said += f" (gap {100 * plan.gap:.1f} %)" if plan.gap >= 0 and len(plan.services) == 1 else ""
    if plan.estimate is not None:
        said += f"; about {plan.estimate:.0f} decoded tokens/s under load"
    if plan.simulated is not None:
        said += f", {plan.simulated:.1f} simulated"
    if plan.evaluations:
        said += f"; {plan.evaluations:,} placements evaluated, {plan.simulations} simulated"
    if plan.solver:
        said += f"; {plan.solver}" + (f" ({plan.licence})" if plan.licence else "")
    return f"{said}, in {plan.seconds:.1f} s"


def plan_for(experiment: Experiment, folder: Folder, given: Path | None, seed: int) -> Plan:
    """Return the given plan, the one written before for the same question, or a new one."""
    if given is not None:
        return plans.read(given)
    path = folder.plan(experiment)
    if path.is_file():
        plan = plans.read(path)
        if (plan.question, plan.seed) == (question_id(experiment), seed):
            return plan
    return make_plan(experiment, folder, seed).plan


def simulate(experiment: Experiment, folder: Folder, given: Path | None, seed: int) -> Done:
    """Simulate the plan under the experiment's workload."""
    done = simulated(experiment, plan_for(experiment, folder, given, seed), seed)
    if experiment.workload.timeline_s > 0:
        from helix.simulate.service import write_timelines

        files = write_timelines(done.plan, experiment, seed, folder.timelines)
        done = done._replace(files=tuple(files))
    return done


def simulated(experiment: Experiment, plan: Plan, seed: int) -> Done:
    """Return what comes of the plan under the experiment's workload."""
    from helix.simulate.metrics import percentiles, pooled
    from helix.simulate.service import serve

    outcomes = serve(plan, experiment, seed).outcomes
    rate, prompt_s, decode_s = pooled(list(outcomes.values()))
    metrics = figures("", (rate, prompt_s, decode_s))
    metrics += [
        Metric(name="plan.flow", value=plan.flow, unit="token/s"),
        Metric(name="events", value=sum(o.events for o in outcomes.values()), unit="1"),
        Metric(name="queries.finished", value=sum(o.finished for o in outcomes.values()), unit="1"),
        Metric(name="queries.rejected", value=sum(o.rejected for o in outcomes.values()), unit="1"),
        Metric(name="queries.most", value=sum(o.most_active for o in outcomes.values()), unit="1"),
    ]
    summary = (
        f"{rate:.2f} decoded tokens/s; prompt p50 {percentiles(prompt_s)[2]:.2f} s, decode p50"
        f" {percentiles(decode_s)[2]:.3f} s"
    )
    full = [f"{name} {i}" for name, o in outcomes.items() for i in o.overflowed]
    if full:
        log.warning("the KV cache of machine %s overflowed; offer less", ", ".join(full))
    return Done(tuple(metrics), plan, (), summary, outcomes)


def figures(before: str, pooled: "tuple[float, Floats, Floats]") -> list[Metric]:
    """Return throughput and latencies as metrics; a phase that nothing finished has none."""
    from helix.simulate.metrics import percentiles

    rate, prompt_s, decode_s = pooled
    found = [Metric(name=f"{before}decode.throughput", value=rate, unit="token/s")]
    for phase, seconds in (("prompt", prompt_s), ("decode", decode_s)):
        if not len(seconds):
            log.warning(
                "no %s%s ended in the time that counts; raise workload.duration_s or ask less of"
                " the machines",
                before.replace(".", " "),
                phase,
            )
            continue
        names, values = (*PERCENTILES, "mean"), (*percentiles(seconds), float(seconds.mean()))
        found += [
            Metric(name=f"{before}{phase}.{name}", value=value, unit="s")
            for name, value in zip(names, values, strict=True)
        ]
    return found


def do(
    verb: Verb,
    experiment: Experiment,
    folder: Folder,
    *,
    suite: str = OWN,
    seed: int = 0,
    given: Path | None = None,
) -> tuple[Record, Done]:
    """Do a case, append its record and return both."""
    if seed < 0:
        raise InputError(f"--seed is {seed}, expected 0 or more")
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    if verb == "run":
        from helix.run.deploy import model_config

        model_config(experiment)  # before anything is measured or planned
    asked = measured_here(experiment, folder, seed)
    if verb == "plan":
        done = make_plan(asked, folder, seed)
    elif verb == "simulate":
        done = simulate(asked, folder, given, seed)
    else:
        from helix.run.case import serve

        done = serve(asked, plan_for(asked, folder, given, seed), folder, seed)
    record = record_of(
        verb, experiment, folder, config=config_of(verb, experiment, seed), seed=seed, suite=suite,
        metrics=done.metrics, started=started, wall_s=time.perf_counter() - clock,
        peak_rss=peak_rss(), files=done.files,
    )  # fmt: skip
    folder.records(suite).append(record)
    return record, done


def record_of(
    verb: Verb, experiment: Experiment, folder: Folder, *, config: dict[str, Any], seed: int,
    suite: str, metrics: tuple[Metric, ...], started: str, wall_s: float, peak_rss: int,
    files: Sequence[Path] = (),
) -> Record:  # fmt: skip
    """Return a finished case as a record."""
    return Record(
        artifact=ARTIFACT,
        suite=suite,
        experiment=experiment.name,
        case=axes(verb, experiment),
        origin=ORIGIN[verb],
        config=config,
        case_id=case_id(config),
        metrics=metrics,
        status="ok",
        seed=seed,
        started=started,
        wall_s=wall_s,
        peak_rss=peak_rss,
        provenance=provenance.save(folder.out),
        files={
            str(path.relative_to(folder.out)): sha256(path.read_bytes()).hexdigest()
            for path in files
        },
    )


def measured_here(experiment: Experiment, folder: Folder, seed: int) -> Experiment:
    """Return the experiment with this machine's profile, measured if it is not there yet."""
    if experiment.profile.source != HERE:
        return experiment
    from helix.measure import measure

    path = folder.profiles(experiment)
    if not (path / "limits.csv").is_file():
        log.info(measure(experiment, path, seed))
    profile = msgspec.structs.replace(experiment.profile, source=str(path))
    return msgspec.structs.replace(experiment, profile=profile)


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


def axes(verb: Verb, experiment: Experiment) -> dict[str, Axis]:
    """Return what tables select records by."""
    return {
        "verb": verb,
        "method": experiment.search.method,
        "objective": experiment.search.objective if experiment.search.method == "search" else "",
        "scheduler": experiment.workload.scheduler,
        "mode": experiment.workload.mode,
        "compat": experiment.workload.compat,
    }


def config_of(verb: Verb, experiment: Experiment, seed: int) -> dict[str, Any]:
    """Return the whole configuration of a case."""
    return {"verb": verb, "seed": seed, "experiment": msgspec.to_builtins(experiment)}


def run_suite(suite: str, folder: Folder, *, seed: int, again: bool) -> None:
    """Do every case of a suite that has no finished record yet."""
    finished = set() if again else folder.records(suite).finished()
    cases: list[tuple[Verb, Experiment]] = [
        (case.verb, named()[case.experiment]) for case in SUITES[suite]
    ]
    todo: list[tuple[Verb, Experiment]] = [
        (verb, experiment)
        for verb, experiment in cases
        if (experiment.name, case_id(config_of(verb, experiment, seed))) not in finished
    ]
    if len(todo) < len(cases):
        log.info("%d finished cases are kept (--again redoes them)", len(cases) - len(todo))
    with progress(len(todo), f"{ARTIFACT} {suite}") as advance:
        for verb, experiment in todo:
            _, done = do(verb, experiment, folder, suite=suite, seed=seed)
            log.info("%s %s: %s", verb, experiment.name, done.summary)
            advance(1)
