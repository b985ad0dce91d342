"""The verb `plan`: place by the experiment's method; say what was found and how good it can be."""

from typing import Any

import msgspec
import numpy as np

from beta.inputs.cluster import GIB
from beta.inputs.experiment import MACHINE, V100, Experiment
from beta.inputs.load import Loaded, load
from beta.inputs.model import Model
from beta.inputs.sources import config_files, digest_of, profile_file, traffic_digest
from beta.plan import methods, plans
from beta.plan.bound import upper_bound
from beta.plan.methods import Solved
from beta.plan.placement import Placement, Timetable, packed
from beta.plan.plans import Period, Plan, PlannedGroup, ServedModel
from beta.plan.problem import Problem
from beta.plan.show import plan_table, unplaced
from beta.plan.switches import resolve
from beta.simulate.fast import Outcome
from beta.simulate.play import play
from common.artifact import Ask, Case, Done
from common.case import case_id
from common.record import Metric

ASKED = ("cluster", "models", "training", "placement")
"""Fields of an experiment that decide its placement, beside profile and traffic."""


def plan(case: Case, ask: Ask) -> Done:
    """Return the placement found, its share in time in training, and the bound on any."""
    experiment: Experiment = case.experiment
    loaded = load(experiment, case.seed)
    problem = problem_of(experiment, loaded, case.seed)
    solved = place(experiment, loaded, case.seed)
    found = plan_of(experiment, solved, loaded, case.seed)
    bound = bound_metrics(problem, found.attainment if solved.proved else 1.0)
    summary = (
        f"{100 * found.attainment:.2f} % of {len(loaded.train)} training requests in time"
        f" ({_limit(found, bound[0].value)}); found{_by(solved)} in {solved.search_s:.2f} s"
    )
    return Done(
        summary=summary,
        metrics=(*placed_metrics(solved), *bound),
        plan=found,
        shows=(plan_table(found),),
        hints=(*unplaced(found), *_left_out(solved), *loaded.notes),
    )


def _limit(found: Plan, bound: float) -> str:
    """Say how far from the best the answer can be."""
    single = "" if len(found.periods) == 1 else "that stays "
    if found.attainment >= bound:
        return "no placement on these devices passes that"
    return f"no placement {single}on these devices passes {100 * bound:.2f} %"


def _by(solved: Solved) -> str:
    return f" by {solved.by}" if solved.by else ""


def _left_out(solved: Solved) -> tuple[str, ...]:
    if not solved.left_out:
        return ()
    return (
        f"not tried here, as it would take long: {', '.join(solved.left_out)}; ask for one by"
        " --method",
    )


def question(experiment: Experiment, seed: int) -> str:
    """Return what identifies the question that a plan answers: not how it is played.

    Files count by their content, not by their names: of the profile, and of the traffic.
    """
    shipped = experiment.profile in (V100, MACHINE)
    traffic = traffic_digest(experiment)
    described = [digest_of(path) for path in config_files(experiment)]
    asked: dict[str, Any] = {field: getattr(experiment, field) for field in ASKED}
    if experiment.placement.method == "best":  # chosen by the simulator that is asked
        playing = experiment.simulator
        asked |= {"kind": playing.kind, "dispatch": playing.dispatch, "delays": playing.delays}
    return case_id(
        {
            **asked,
            "profile": experiment.profile if shipped else "",
            "traffic": msgspec.structs.replace(experiment.traffic, path=traffic),
            "contents": [digest_of(profile_file(experiment)), traffic, *described],
            "seed": seed,
        }
    )


def problem_of(experiment: Experiment, loaded: Loaded, seed: int = 0) -> Problem:
    """Return the placement question of an experiment."""
    settings = experiment.placement
    switches = resolve(settings.mode, settings.switches)
    cluster, load_s = experiment.cluster.cluster(), settings.load_gib_s * GIB
    return Problem(
        loaded.models, cluster, loaded.train, switches, load_s, experiment.simulator, seed
    )


def place(experiment: Experiment, loaded: Loaded, seed: int = 0) -> Solved:
    """Place by the experiment's method."""
    settings, problem = experiment.placement, problem_of(experiment, loaded, seed)
    return methods.solve(problem, settings.method, settings.time_limit_s)


def plan_of(experiment: Experiment, solved: Solved, loaded: Loaded, seed: int = 0) -> Plan:
    """Return the placement by names, with each group's attainment in training.

    Training is played by the experiment's simulator, as the bound is; placements that take turns
    by the fast one.
    """
    timetable, models = solved.timetable, loaded.models
    outcome = _trained(experiment, timetable, loaded, seed)
    periods = [
        Period(start_s=start, groups=_groups(experiment, placement, models, timetable, outcome))
        for start, placement in zip(timetable.start_s, timetable.placements, strict=True)
    ]
    return Plan(
        experiment=experiment.name,
        method=experiment.placement.method,
        stand_in=experiment.stand_in,
        devices=experiment.cluster.devices,
        memory_gib=experiment.cluster.budget_gib,
        models=tuple(
            ServedModel(
                name=model.name,
                profile=model.profile.model,
                slo_s=model.slo_s if model.slo_s < np.inf else None,
                rate=model.rate,
            )
            for model in models
        ),
        periods=tuple(periods),
        attainment=float(outcome.good.mean()),
        load_gib_s=None if timetable.load_bytes_s == np.inf else timetable.load_bytes_s / GIB,
    )


def _trained(experiment: Experiment, timetable: Timetable, loaded: Loaded, seed: int) -> Outcome:
    playing, placing = experiment.simulator, experiment.placement
    if len(timetable.placements) > 1:
        playing = msgspec.structs.replace(playing, kind="fast")
    switches = resolve(placing.mode, placing.switches)
    return play(loaded.train, timetable, loaded.models, playing, switches, seed=seed)


def _groups(
    experiment: Experiment,
    placement: Placement,
    models: tuple[Model, ...],
    timetable: Timetable,
    outcome: Outcome,
) -> tuple[PlannedGroup, ...]:
    """Return the groups; those of one placement lie inside nodes, with what each answered."""
    sizes = [group.config.devices for group in placement.groups]
    in_order = tuple(sum(sizes[:g]) for g in range(len(sizes)))
    if len(timetable.placements) > 1:  # as simulated
        return plans.groups_of(placement, models, in_order)
    # Groups that do not fit so are only made with the original's defects.
    first = packed(placement, experiment.cluster.cluster()) or in_order
    groups = len(placement.groups)
    asked = np.bincount(outcome.group[outcome.group >= 0], minlength=groups)
    good = np.bincount(outcome.group[outcome.good], minlength=groups)
    shares = [float(g / a) if a else None for g, a in zip(good, asked, strict=True)]
    return plans.groups_of(placement, models, first, shares)


def placed_metrics(solved: Solved) -> tuple[Metric, ...]:
    """Return what the search says."""
    placement = solved.timetable.placements[0]
    first = placement.groups[0].config
    metrics = [
        Metric(name="search.time", value=solved.search_s, unit="s"),
        Metric(name="search.simulations", value=solved.simulations, unit="1"),
        Metric(name="search.requests", value=solved.walked, unit="1"),
        Metric(name="plan.groups", value=len(placement.groups), unit="1"),
        Metric(name="plan.replicas", value=placement.replicas, unit="1"),
        Metric(name="plan.op", value=first.op, unit="1"),
        Metric(name="plan.pp", value=first.pp, unit="1"),
        Metric(name="plan.periods", value=len(solved.timetable.placements), unit="1"),
    ]
    if solved.score is not None and solved.train_attainment is not None:
        metrics += [
            Metric(name="plan.score", value=solved.score, unit="1"),
            Metric(name="plan.train_attainment", value=solved.train_attainment, unit="1"),
        ]
    return tuple(metrics)


def bound_metrics(problem: Problem, proved: float = 1.0) -> tuple[Metric, ...]:
    """Return what no placement on these devices can pass, on the training workload.

    `proved` is the attainment that was proved the best by trying all placements.
    """
    bound = upper_bound(problem)
    return (
        Metric(name="bound.attainment", value=min(bound.attainment, proved), unit="1"),
        Metric(name="bound.work", value=bound.work, unit="1"),
        Metric(name="bound.memory", value=bound.memory, unit="1"),
    )
