"""A small artifact for tests of the shell: counts to a number, or fails as it is asked to."""

import os
import signal
import time
from pathlib import Path

import msgspec
import numpy as np
from matplotlib.figure import Figure

from common.artifact import Artifact, Ask, Case, Done
from common.case import case_id
from common.errors import CaseError
from common.record import Metric
from common.suites import How


class Experiment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to count."""

    name: str
    about: str = ""
    method: str = "count"
    number: int = 3
    """How far."""
    trouble: str = ""
    """raise, case, sleep, kill, or empty."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How far to count."""

    schema: str = "toy-plan/1"
    experiment: str
    method: str
    question: str = ""
    number: int


def named() -> dict[str, Experiment]:
    experiments = [
        Experiment(name="one", number=1),
        Experiment(name="raises", trouble="raise"),
        Experiment(name="nothing", trouble="case"),
        Experiment(name="two", number=2),
    ]
    return {experiment.name: experiment for experiment in experiments}


def plan(case: Case, ask: Ask) -> Done:
    _trouble(case.experiment)
    found = Plan(experiment=case.experiment.name, method="count", number=case.experiment.number)
    return Done(summary=f"to {found.number}", plan=found)


def numpy_plan(case: Case, ask: Ask) -> Done:
    done = plan(case, ask)
    number = np.int64(done.plan.number)
    return msgspec.structs.replace(done, plan=msgspec.structs.replace(done.plan, number=number))


def simulate(case: Case, plan: Plan, ask: Ask) -> Done:
    _trouble(case.experiment)
    metric = Metric(name="sum", value=sum(range(plan.number + 1)), unit="1")
    return Done(summary=f"sum {metric.value}", plan=plan, metrics=(metric,), shows=("a table",))


def _trouble(experiment: Experiment) -> None:
    mended = Path(os.environ.get("TOY_MENDED", "/nowhere")).exists()
    if experiment.trouble == "raise" and not mended:
        raise ZeroDivisionError("of no\nuse")
    if experiment.trouble == "case" and not mended:
        raise CaseError("there is nothing to count")
    if experiment.trouble == "sleep":
        time.sleep(60)
    if experiment.trouble == "kill":
        os.kill(os.getpid(), signal.SIGKILL)


def check(plan: Plan, where: str) -> None:
    if plan.number < 0:
        raise CaseError(f"{where}: number is {plan.number}, expected 0 or more")


def question(experiment: Experiment, seed: int) -> str:
    return case_id(msgspec.to_builtins(experiment))


def suites() -> dict[str, list[Case]]:
    quick = [Case(verb="simulate", experiment=e) for e in named().values()]
    return {"quick": quick, "full": [Case(verb="plan", experiment=e) for e in named().values()]}


def spread_how(suite: str, overrides: object) -> How:
    killer = Case(verb="simulate", experiment=Experiment(name="killer", trouble="kill"))
    return How(cases=(killer, *suites()[suite]), processes=2, point="point")


def point(case: Case, ask: Ask) -> Done:
    return simulate(case, plan(case, ask).plan, ask)


def figure(plan: Plan, value: object) -> Figure:
    drawn = Figure()
    drawn.add_subplot().bar(0, plan.number)
    return drawn


def artifact(**hooks: str) -> Artifact:
    here = "tests.common.toy"
    known = ("plan", "simulate", "check", "question", "suites")
    own = {name: f"{here}:{name}" for name in known} | {
        "experiment": f"{here}:Experiment",
        "plan_type": f"{here}:Plan",
        "experiments": f"{here}:named",
    }
    return Artifact(name="tests", sentence="Toy.", method="method", hooks=own | hooks)
