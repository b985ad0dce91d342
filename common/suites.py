"""Do cases and keep their records: one, a sweep's points, or a suite in which each fails alone."""

import logging
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from common import files, provenance
from common.artifact import Artifact, Ask, Case, Done, Folder, field
from common.errors import CaseError, InputError
from common.log import progress
from common.names import near
from common.plans import make_plan, plan_for
from common.record import Record
from common.signals import interruptible, limited
from common.spread import spread

NEEDS_PLAN = ("simulate", "run")


class How(msgspec.Struct, frozen=True, kw_only=True):
    """How several cases are done; those of the verb `run` are measured, so alone and last."""

    cases: tuple[Case, ...]
    processes: int = 1
    ray: str = ""  # address of a Ray cluster in place of processes
    point: str = ""  # hook (case, ask) -> Done in place of the verb's, for what is spread
    before: str = ""  # hook () -> None, once before any but `run`, such as compiling
    claims: tuple[str, ...] = ()  # experiments whose claims count; empty: all


class Worked(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a case and what it cost."""

    done: Done | None
    error: str | None
    started: str = ""
    wall_s: float = 0.0
    peak_rss: int = 0


def carry_out(artifact: Artifact, case: Case, ask: Ask, given: Any = None) -> Done:
    """Do a case by its verb."""
    if prepare := artifact.hook("prepare"):
        case = prepare(case, ask)
    with limited(case.limit_s):
        if case.verb == "plan":
            return make_plan(artifact, case, ask)
        asked = (plan_for(artifact, case, ask, given),) if case.verb in NEEDS_PLAN else ()
        return artifact.hook(case.verb)(case, *asked, ask)


def do(artifact: Artifact, case: Case, folder: Folder, ask: Ask, given: Any = None) -> Done:
    """Do a user's case, keep its record and return what came of it.

    A case without a result (CaseError) is kept as failed; a wrong question leaves no record.
    """
    worked, raised = _clocked(lambda: carry_out(artifact, case, ask, given))
    if raised is None or isinstance(raised, CaseError):
        _keep(artifact, case, worked, folder, ask.suite)
    if worked.done is None:
        raise raised or AssertionError
    return worked.done


def do_all(
    artifact: Artifact, how: How, folder: Folder, ask: Ask, *, again: bool, given: Any = None
) -> list[Record]:
    """Do the cases that have no finished record yet; return the records of those that failed."""
    log, file = logging.getLogger(artifact.name), folder.records(ask.suite)
    finished = set[tuple[str, str]]() if again else file.finished()
    todo = [case for case in how.cases if (case.experiment.name, case.id) not in finished]
    if kept := len(how.cases) - len(todo):
        log.info("%d finished cases are kept (--again redoes them)", kept)
    wide, failed = how.ray or (how.processes > 1 and len(todo) > 1), list[Record]()
    together = [case for case in todo if wide and case.verb != "run"]
    alone = [case for case in todo if not wide or case.verb == "run"]
    if how.before and any(case.verb != "run" for case in todo):
        artifact.hook(how.before)()
    with interruptible() as check, progress(len(todo), f"{artifact.name} {ask.suite}") as advance:

        def keep(case: Case, worked: Worked) -> None:
            check()
            what = f"{case.verb} {case.experiment.name} ({field(case.experiment, artifact.method)})"
            record = _keep(artifact, case, worked, folder, ask.suite)
            if worked.done is None:
                failed.append(record)
                log.warning("%s failed: %s", what, worked.error)
            else:
                level = logging.DEBUG if case.marks else logging.INFO
                log.log(level, "%s: %s", what, worked.done.summary)
            advance(1)

        for case, worked in _together(artifact, together, how, ask, given) if together else ():
            keep(case, worked)
        for case in alone:
            keep(case, _alone((artifact, case, how, ask, given)))
    return failed


def suite_of(
    artifact: Artifact, suite: str, overrides: Sequence[str], seed: int, only: str = ""
) -> How:
    """Return how a suite is done, or what of it has experiments of a name or pattern (`only`)."""
    if custom := artifact.hook("how"):
        how: How = custom(suite, overrides)
    elif overrides:
        raise InputError(
            f"--set changes one experiment, but {suite} is a fixed suite; use 'plan EXPERIMENT"
            " --set ...'"
        )
    else:
        how = How(cases=tuple(artifact.hook("suites")()[suite]))
    cases = tuple(msgspec.structs.replace(case, seed=seed) for case in how.cases)
    if not only:
        return msgspec.structs.replace(how, cases=cases)
    chosen = tuple(case for case in cases if fnmatchcase(case.experiment.name, only))
    if not chosen:
        known = {case.experiment.name for case in cases}
        raise InputError(f"--only {only}: no such experiment in {suite}{near(only, known)}")
    claims = tuple(dict.fromkeys(case.experiment.name for case in chosen))
    return msgspec.structs.replace(how, cases=chosen, claims=claims)


def _together(
    artifact: Artifact, cases: Sequence[Case], how: How, ask: Ask, given: Any
) -> Iterator[tuple[Case, Worked]]:
    """Do cases beside each other; plans that they need are made first, each on all cores.

    A case whose plan cannot be made fails alone; a given plan that does not hold is a mistake.
    """
    given = given and plan_for(artifact, cases[0], ask, given)
    tasks, bare = list[tuple[Any, ...]](), msgspec.structs.replace(ask, folder=None)
    told = msgspec.structs.replace(how, cases=())  # it travels with each task
    for case in cases:
        plan = given
        if not how.point and case.verb in NEEDS_PLAN and not given:
            planned, _ = _clocked(lambda c=case: Done(summary="", plan=plan_for(artifact, c, ask)))
            if planned.done is None:
                yield case, planned
                continue
            plan = planned.done.plan
        tasks.append((artifact, case, told, bare, plan))
    packages = ("common", artifact.name)
    for i, worked in spread(_alone, tasks, processes=how.processes, ray=how.ray, packages=packages):
        lost = None if isinstance(worked, Worked) else Worked(done=None, error=_said(worked))
        yield tasks[i][1], lost or worked  # pyright: ignore[reportReturnType]


def _alone(task: tuple[Artifact, Case, How, Ask, Any]) -> Worked:
    artifact, case, how, ask, given = task
    if how.point and case.verb != "run":
        return _clocked(lambda: artifact.hook(how.point)(case, ask))[0]
    return _clocked(lambda: carry_out(artifact, case, ask, given))[0]


def _clocked(function: Callable[[], Done]) -> tuple[Worked, Exception | None]:
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    done, raised = None, None
    try:
        done = function()
    except Exception as problem:  # whatever one case raises must not cost the others
        raised = problem
        logging.getLogger("common").debug("%s", traceback.format_exc())
    wall_s, error = time.perf_counter() - clock, raised and _said(raised)
    peak = provenance.peak_rss()
    return Worked(done=done, error=error, started=started, wall_s=wall_s, peak_rss=peak), raised


def _said(error: BaseException) -> str:
    line = " ".join(str(error).split())
    return line if isinstance(error, InputError) else f"{type(error).__name__}: {line}"


def _keep(artifact: Artifact, case: Case, worked: Worked, folder: Folder, suite: str) -> Record:
    done = worked.done
    record = Record(
        artifact=artifact.name,
        suite=suite,
        experiment=case.experiment.name,
        case=artifact.axes(case, done),
        origin=artifact.origin(case.verb),
        config=case.config,
        case_id=case.id,
        metrics=done.metrics if done else (),
        status="ok" if done else "failed",
        error=worked.error,
        seed=case.seed,
        started=worked.started,
        wall_s=worked.wall_s,
        peak_rss=worked.peak_rss,
        provenance=provenance.save(folder.out),
        files={
            str(p.relative_to(folder.out)): files.digest(p) for p in (done.files if done else ())
        },
    )
    if provenance.is_first_rank():
        folder.records(suite).append(record)
    return record
