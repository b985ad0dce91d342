"""Beta's simulators and searches beside readable twins and simpy (`make bench`)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from beta.inputs.load import load
from beta.inputs.profile import Config
from beta.inputs.workload import Workload
from beta.paper.experiments import named
from beta.paper.grid import SWEEPS
from beta.plan.answer import problem_of
from beta.plan.bound import fluid_work, upper_bound
from beta.plan.greedy import greedy, readable_greedy
from beta.plan.placement import Placement
from beta.plan.problem import Problem, Scored, score
from beta.plan.search import search, search_separated
from beta.simulate import batching, events, fast, readable, readable_batching
from beta.simulate.fast import Outcome
from tests.bench.yardstick import Counts, Table, Yardstick, start_up, whole_process

pytestmark = pytest.mark.timeout(600)
ANSWERED = {"requests": 399_308, "in time": 399_308}
PART = 20_000
"""Requests that the readable twins and simpy are given."""


def ablation() -> Problem:
    """Return 60 models on 32 devices."""
    experiment = named()["ablation"]
    return problem_of(experiment, load(experiment))


def counts(found: Scored) -> Counts:
    return {"simulations": found.simulations, "requests walked": found.walked}


def answered(outcome: Outcome) -> Counts:
    return {"requests": len(outcome.good), "in time": int(outcome.good.sum())}


def pipeline() -> tuple[Problem, Workload, Placement]:
    """Return models on one pipeline of eight stages, at 20 requests/s."""
    experiment = SWEEPS["rate"](named()["fig4"], 20)
    loaded = load(experiment)
    problem = problem_of(experiment, loaded)
    return problem, loaded.test, greedy(problem, (Config(1, 8),)).placement


@pytest.mark.parametrize(
    ("op", "pp", "groups", "simulations", "walked", "at_least"),
    [
        (1, 1, 32, 76, 193_902, 7),
        (1, 4, 8, 65, 263_078, 5),
        (1, 8, 4, 63, 385_227, 3.5),
        (4, 2, 4, 34, 181_204, 4),
    ],
)
def test_greedy_placement_beside_its_twin(
    table: Table, op: int, pp: int, groups: int, simulations: int, walked: int, at_least: float
) -> None:
    """The twin simulates with the compiled simulator too, each time from the start.

    Measured: 18, 12, 8, 10.
    """
    problem, configs = ablation(), (Config(op, pp),) * groups
    found = table.compare(
        f"beta: greedy, 60 models, {groups} groups of ({op}, {pp})",
        lambda: greedy(problem, configs),
        Yardstick("readable twin", lambda: readable_greedy(problem, configs)),
        at_least=at_least,
        work=counts,
        exactly={"simulations": simulations, "requests walked": walked},
    )
    assert found.placement == readable_greedy(problem, configs)


@pytest.mark.parametrize(
    ("policy", "simulations", "walked", "at_least"),
    [(search, 522, 2_417_164, 6), (search_separated, 15_562, 77_166_679, 6)],
)
def test_a_search_beside_its_simulations_from_the_start(
    table: Table, policy: Any, simulations: int, walked: int, at_least: float
) -> None:
    """Measured: 16 to 19, 15 to 17."""
    problem = ablation()
    placement = policy(problem).placement
    one = Yardstick("the placement simulated once", lambda: score(problem, placement))
    table.compare(
        f"beta: {policy.__name__}, 60 models, 32 devices",
        lambda: policy(problem),
        one,
        at_least=at_least,
        work=counts,
        exactly={"simulations": simulations, "requests walked": walked},
        per="simulations",
    )


@pytest.mark.parametrize(("kind", "at_least"), [("fast", 30), ("batching", 6)])
def test_a_simulated_request_beside_the_readable_twins(
    table: Table, kind: str, at_least: float
) -> None:
    """Measured: 89 (fast), 17 to 18 (batching)."""
    problem, test, placement = pipeline()
    tables, models = problem.tables(placement.configs()), problem.models
    ours, twin = {
        "fast": (
            lambda: fast.simulate(test, placement, tables),
            lambda: readable.simulate(test[:PART], placement, models),
        ),
        "batching": (
            lambda: batching.simulate(test, placement, models),
            lambda: readable_batching.simulate(test[:PART], placement, models),
        ),
    }[kind]
    table.compare(
        f"beta: {kind} simulator, 8 stages",
        ours,
        Yardstick(f"readable twin, {PART:,} requests", twin, PART),
        at_least=at_least,
        work=answered,
        exactly=ANSWERED,
        per="requests",
    )


def in_simpy(problem: Problem, workload: Workload, placement: Placement) -> int:
    """Play controller, group and stages as processes of simpy; return the requests answered."""
    simpy: Any = pytest.importorskip("simpy")
    config = placement.groups[0].config
    environment, answered = simpy.Environment(), [0]
    stages = [simpy.Resource(environment) for _ in range(config.pp)]
    seconds = [model.profile.records[config].stage_s[1] for model in problem.models]

    def way(arrival: float, model: int) -> Iterator[Any]:
        yield environment.timeout(arrival)
        yield environment.timeout(0.001)
        yield environment.timeout(0.001)
        for stage, takes in zip(stages, seconds[model], strict=True):
            with stage.request() as turn:
                yield turn
                yield environment.timeout(takes)
        answered[0] += 1

    for arrival, model in zip(workload.arrival.tolist(), workload.model.tolist(), strict=True):
        environment.process(way(arrival, model))
    environment.run()
    return answered[0]


def test_the_event_simulator_beside_simpy(table: Table) -> None:
    """Measured: 32 to 34."""
    problem, test, placement = pipeline()
    part = test[: PART // 4]
    assert in_simpy(problem, part, placement) == len(part)
    table.compare(
        "beta: event simulator, 8 stages",
        lambda: events.simulate(test, placement, problem.models),
        Yardstick(
            f"simpy, {len(part):,} requests", lambda: in_simpy(problem, part, placement), len(part)
        ),
        at_least=13,
        work=answered,
        exactly=ANSWERED,
        per="requests",
    )


def test_the_bound_beside_its_kernel_as_plain_python(table: Table) -> None:
    """Measured: 9.4 to 10."""
    experiment = named()["s1-maf1"]
    problem = problem_of(experiment, load(experiment))
    arrival = problem.train.arrival[:PART]
    work = np.full(PART, 0.1)
    plain: Any = fluid_work
    table.compare(
        "beta: bound of S1@MAF1",
        lambda: upper_bound(problem),
        Yardstick(
            f"plain Python, {PART:,} requests",
            lambda: plain.py_func(arrival, arrival + 1.0, work, 4.0),
            PART,
        ),
        at_least=4,
        work=lambda _: {"requests": len(problem.train)},
        exactly={"requests": 85_482},
        per="requests",
    )


def test_2_5_million_requests_in_a_process_beside_a_bare_start(
    table: Table, tmp_path: Path
) -> None:
    """Measured: 0.026 to 0.041; 349 MB."""
    traffic = msgspec.structs.replace(named()["s1-maf2"].traffic, rate_scale=21.0)
    setting = f"traffic.rate_scale={traffic.rate_scale}"
    asked = ["plan", "s1-maf2", "--method", "mp-search", "--set", setting, "--out", str(tmp_path)]
    name = "beta: plan for 2.5 million requests, whole process"
    table.compare(
        name,
        lambda: whole_process("-m", "beta", *asked),
        start_up("numba"),
        at_least=0.01,
        work=lambda _: {"plan": 1},
        exactly={"plan": 1},
    )
    record = json.loads((tmp_path / "beta/own.jsonl").read_text().splitlines()[-1])
    table.fact(f"{name}: peak memory", record["peak_rss"] / 1e6, 1000, "MB")
