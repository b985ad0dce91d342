"""The plan of a case: the given one, the one that answers the same question, or a new one."""

import logging
from pathlib import Path
from typing import Any

import msgspec

from common import files, provenance
from common.artifact import Artifact, Ask, Case, Done, Folder, field
from common.errors import InputError


def plan_for(artifact: Artifact, case: Case, ask: Ask, given: Any = None) -> Any:
    """Return the given plan (a value, a file), one written for the same question, or a new one."""
    check, path = artifact.hook("check"), ask.folder and plan_file(artifact, case, ask.folder)
    if isinstance(given, Path):
        return files.read_plan(given, artifact.hook("plan_type"), check)
    if given is not None:
        check(given, "the given plan")
        return given
    if path and path.is_file():
        log = logging.getLogger(artifact.name)
        try:
            plan = files.read_plan(path, artifact.hook("plan_type"), check)
            if plan.question == artifact.hook("question")(case.experiment, case.seed):
                return plan
            log.info("%s answers another question by now; planning again", path)
        except InputError as error:
            log.warning("%s", error)
    if artifact.plans_alike:
        ask = msgspec.structs.replace(ask, folder=None)
    elif not provenance.is_first_rank():
        raise InputError(
            "under torchrun every rank reads the same plan; make it with the verb plan and give"
            " it with --plan FILE"
        )
    return make_plan(artifact, msgspec.structs.replace(case, verb="plan"), ask).plan


def make_plan(artifact: Artifact, case: Case, ask: Ask) -> Done:
    """Plan, and write the plan file where there is a folder."""
    done: Done = artifact.hook("plan")(case, ask)
    question = artifact.hook("question")(case.experiment, case.seed)
    plan, written = msgspec.structs.replace(done.plan, question=question), done.files
    if ask.folder:
        path = files.write_plan(plan, plan_file(artifact, case, ask.folder))
        written = (*written, path)
    return msgspec.structs.replace(done, plan=plan, files=written)


def plan_file(artifact: Artifact, case: Case, folder: Folder) -> Path:
    """Return where the plan of a case is kept."""
    usual = f"{case.experiment.name}.{field(case.experiment, artifact.method)}"
    stem = artifact.hook("stem")
    return folder.at("plans", f"{stem(case.experiment, case.seed) if stem else usual}.json")
