"""Answer one question: load it, place by a method, play the placement; nothing is written."""

from typing import NamedTuple

import numpy as np

from beta.inputs.cluster import GIB
from beta.inputs.experiment import Experiment
from beta.inputs.load import Loaded, load
from beta.plan import methods, plans
from beta.plan.bound import upper_bound
from beta.plan.methods import Solved
from beta.plan.placement import Placement, Timetable
from beta.plan.plans import Period, Plan, ServedModel
from beta.plan.problem import Problem
from beta.plan.switches import resolve
from beta.simulate.fast import Outcome, simulate
from beta.simulate.play import play
from beta.simulate.statistics import Statistics, trimmed
from common.case import case_id
from common.record import Metric


class Played(NamedTuple):
    """What the test workload says of a placement."""

    outcome: Outcome
    statistics: Statistics


def problem_of(experiment: Experiment, loaded: Loaded) -> Problem:
    """Return the placement question of an experiment."""
    settings = experiment.placement
    switches = resolve(settings.mode, settings.switches)
    cluster, load = experiment.cluster.cluster(), settings.load_gib_s * GIB
    return Problem(loaded.models, cluster, loaded.train, switches, load)


def place(experiment: Experiment, method: str, loaded: Loaded) -> Solved:
    """Place by a method."""
    problem = problem_of(experiment, loaded)
    return methods.solve(problem, method, experiment.placement.time_limit_s)


def play_on_test(
    experiment: Experiment, timetable: Timetable, loaded: Loaded, seed: int = 0
) -> Played:
    """Play placements on the test workload."""
    settings, placing = experiment.simulator, experiment.placement
    switches = resolve(placing.mode, placing.switches)
    outcome = play(loaded.test, timetable, loaded.models, settings, switches, seed=seed)
    return Played(outcome, trimmed(loaded.test, outcome, warm_up_s=settings.warm_up_s))


def question_id(experiment: Experiment, method: str, seed: int) -> str:
    """Return what identifies the question that a plan answers: not how it is played."""
    asked = {
        field: getattr(experiment, field)
        for field in ("cluster", "models", "profile", "traffic", "training", "placement")
    }
    return case_id({**asked, "method": method, "seed": seed})


def plan_of(
    experiment: Experiment, method: str, solved: Solved, loaded: Loaded, seed: int = 0
) -> Plan:
    """Return the placement by names, with each group's attainment in training."""
    timetable, models = solved.timetable, loaded.models
    single = len(timetable.placements) == 1
    periods = [
        Period(
            start_s=start,
            groups=plans.groups_of(
                placement, models, _attainments(placement, loaded, experiment) if single else ()
            ),
        )
        for start, placement in zip(timetable.start_s, timetable.placements, strict=True)
    ]
    attainment = solved.train_attainment
    if attainment is None:
        problem = problem_of(experiment, loaded)
        outcome = play(
            loaded.train, timetable, models, experiment.simulator, problem.switches, seed=seed
        )
        attainment = float(outcome.good.mean())
    return Plan(
        experiment=experiment.name,
        method=method,
        question=question_id(experiment, method, seed),
        stand_in=experiment.stand_in,
        devices=experiment.cluster.devices,
        memory_gib=experiment.cluster.memory_gib,
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
        attainment=attainment,
        load_gib_s=None if timetable.load_bytes_s == np.inf else timetable.load_bytes_s / GIB,
    )


def _attainments(
    placement: Placement, loaded: Loaded, experiment: Experiment
) -> list[float | None]:
    problem = problem_of(experiment, loaded)
    outcome = simulate(loaded.train, placement, problem.tables(placement.configs()))
    groups = len(placement.groups)
    asked = np.bincount(outcome.group[outcome.group >= 0], minlength=groups)
    good = np.bincount(outcome.group[outcome.good], minlength=groups)
    return [float(g / a) if a else None for g, a in zip(good, asked, strict=True)]


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


def played_metrics(played: Played) -> tuple[Metric, ...]:
    """Return what the test workload says."""
    s = played.statistics
    return (
        Metric(name="attainment", value=s.goodput, unit="1"),
        Metric(name="latency.mean", value=s.latency_s, unit="s"),
        Metric(name="latency.p99", value=s.p99_s, unit="s"),
        Metric(name="latency.with_refused", value=s.latency_with_refused_s, unit="s"),
        Metric(name="requests", value=s.requests, unit="1"),
        Metric(name="request.rate", value=s.request_rate, unit="1/s"),
    )


def answer(experiment: Experiment, method: str, seed: int = 0) -> tuple[Metric, ...]:
    """Place and play: everything that a point of a figure needs."""
    loaded = load(experiment, seed)
    solved = place(experiment, method, loaded)
    played = play_on_test(experiment, solved.timetable, loaded, seed)
    bound = bound_metrics(problem_of(experiment, loaded)) if experiment.placement.bound else ()
    return (*placed_metrics(solved), *played_metrics(played), *bound)


def bound_metrics(problem: Problem) -> tuple[Metric, ...]:
    """Return what no placement on these devices can pass, on the training workload."""
    bound = upper_bound(problem)
    return (
        Metric(name="bound.attainment", value=bound.attainment, unit="1"),
        Metric(name="bound.work", value=bound.work, unit="1"),
        Metric(name="bound.memory", value=bound.memory, unit="1"),
    )
