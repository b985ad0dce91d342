"""The verb `plan`: search by the experiment's method; say what was found, and how to launch it."""

from pathlib import Path
from typing import NoReturn

import msgspec
from rich.console import Console

from common import files
from common.artifact import Ask, Case, Done, Folder
from common.case import case_id, to_toml
from common.errors import CaseError, InputError
from common.record import Metric
from metis.inputs import sources
from metis.inputs.analytic import ORIGIN
from metis.inputs.experiment import SYNTHETIC, Experiment
from metis.inputs.profile import Profiles
from metis.plan import methods, replan_show
from metis.plan.plans import Plan, check
from metis.plan.replan import replan
from metis.plan.show import plan_table


def plan(case: Case, ask: Ask) -> Done:
    """Return the plan found and how good it is known to be; CaseError where none fits."""
    from metis.run.profile import measured

    experiment: Experiment = case.experiment
    cluster = experiment.load_cluster()
    profiles = experiment.load_profiles(cluster, measured(experiment, ask))
    problem = methods.make_problem(experiment, cluster, profiles)
    given, done = Path(ask.options.get("replan", "")), None
    form = _form(ask)
    if "replan" in ask.options:
        done = replan(experiment, problem, cluster, files.read_plan(given, Plan, check))
    outcome = (
        done.outcome if done else methods.make_plan(experiment, problem, experiment.search.method)
    )
    if outcome.plan is None:
        raise CaseError(outcome.why_none)
    if outcome.interrupted:
        _tell_interrupted(outcome.plan, outcome.summary, ask)
    found, written, hints = outcome.plan, list[Path](), list[str]()
    shows = (plan_table(found),)
    if done:
        shows = (*shows, *replan_show.tables(done))
        more, said = replan_show.write(done, given, ask)
        written += more
        hints += said
    if ask.folder and outcome.original_log:
        path = ask.folder.at("plans", f"{experiment.name}.{found.method}.log")
        written.append(files.write(path, outcome.original_log))
    if ask.folder and form:
        more, told = _exported(form, experiment, found, case.seed, ask.folder)
        written += more
        hints.append(told)
    if ask.folder and ask.own:
        home = ask.folder.at("launch", f"{experiment.name}.{found.method}")
        hints.append(f"launch: {write_launch(experiment, found, home)}")
    return Done(
        summary=f"{outcome.summary}{_origin(experiment, profiles)}",
        metrics=tuple(
            Metric(name=f.name, value=f.value, unit=f.unit, samples=f.samples)
            for f in outcome.figures
        ),
        plan=found,
        files=tuple(written),
        shows=shows,
        hints=tuple(hints),
    )


def _form(ask: Ask) -> str:
    """Return the other trainer that the plan is asked for, if any."""
    from metis.run import exports

    return exports.known(ask.options["export"]) if "export" in ask.options else ""


def _exported(
    form: str, experiment: Experiment, found: Plan, seed: int, folder: Folder
) -> tuple[tuple[Path, ...], str]:
    """Write a plan for another trainer; what that cannot express is kept as a plan all the same.

    Raises:
        InputError: the trainer cannot express the plan.
    """
    from metis.run import exports

    stem = f"{experiment.name}.{found.method}"
    try:
        return exports.export(form, found, experiment.profile.dtype, folder.at("exports", stem))
    except InputError as error:
        answered = msgspec.structs.replace(found, question=question(experiment, seed))
        path = files.write_plan(answered, folder.at("plans", f"{stem}.json"))
        raise InputError(f"{error}; the plan itself is kept: {path}") from error


def _tell_interrupted(found: Plan, summary: str, ask: Ask) -> NoReturn:
    """Print and keep the best plan until Ctrl-C; it answers no question, so that it is not reused.

    Raises:
        KeyboardInterrupt: always.
    """
    if ask.folder:
        path = ask.folder.at("plans", f"{found.experiment}.{found.method}.interrupted.json")
        files.write_plan(found, path)
        Console().print(plan_table(found))
        print(f"{summary}\nplan: {path} (the best until Ctrl-C; use it by --plan)", flush=True)
    raise KeyboardInterrupt


def _origin(experiment: Experiment, profiles: Profiles) -> str:
    """Return what to say of times that no device was measured for, and in whose place they are."""
    if profiles.origin != ORIGIN:
        return ""
    place = ""
    if experiment.profile.source == SYNTHETIC:
        place = ", as the synthetic one was measured for another model or knows not all devices"
    return f" Times and memory: {ORIGIN}{place}."


def question(experiment: Experiment, seed: int) -> str:
    """Return what identifies the question that a plan answers: all but how to train.

    Files count by their content, not by their names.
    """
    asked = msgspec.structs.replace(
        sources.without_paths(experiment), training=type(experiment.training)(), about=""
    )
    contents = sources.digests(experiment)
    return case_id({"experiment": msgspec.to_builtins(asked), "contents": contents})


def write_launch(experiment: Experiment, plan: Plan, home: Path) -> Path:
    """Write the torchrun scripts and Megatron arguments of a plan and return their folder."""
    from metis.run.launch_files import write_launch_files

    nodes = experiment.load_cluster().chosen(plan.machines, plan.node_sequence)
    files.write(home / "experiment.toml", to_toml(experiment))
    write_launch_files(plan, [(node.host, node.device, node.devices) for node in nodes], home)
    return home
