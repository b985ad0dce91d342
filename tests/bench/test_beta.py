"""Speed and memory of Beta against its targets (`make bench`); never part of the test run.

Targets: 40 million simulated requests/s on one core in the search path (the original: 2 million),
mp-search-sep of 60 models on 32 devices in 10 s (44 to 119 s), all 87 points of S1@MAF1 in 100 s on
one core (about 45 minutes), a case of 2.5 million requests in 1 GB (1.8 GB).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from beta.answer import answer, problem_of
from beta.cases import warm
from beta.experiments import named
from beta.inputs.load import load
from beta.inputs.profile import Config
from beta.plan.bound import upper_bound
from beta.plan.greedy import greedy
from beta.plan.search import search, search_separated
from beta.simulate import batching, events, fast
from beta.sweeps import SWEEPS, grids, points

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("op", "pp", "groups"), [(1, 1, 32), (1, 4, 8), (1, 8, 4), (4, 2, 4)])
@pytest.mark.benchmark(group="beta greedy, 60 models, 32 devices")
def test_greedy(benchmark: BenchmarkFixture, op: int, pp: int, groups: int) -> None:
    experiment = named()["ablation"]
    problem = problem_of(experiment, load(experiment))
    configs = (Config(op, pp),) * groups
    found = benchmark.pedantic(greedy, (problem, configs), rounds=20, warmup_rounds=1)
    seconds = benchmark.stats.stats.median
    benchmark.extra_info |= {
        "simulations": found.simulations,
        "million_requests_per_s": found.walked / seconds / 1e6,
        "million_requests_per_s_of_the_original": found.simulations
        * len(problem.train)
        / seconds
        / 1e6,
    }


@pytest.mark.parametrize("policy", [search, search_separated])
@pytest.mark.benchmark(group="beta search, 60 models, 32 devices")
def test_search(benchmark: BenchmarkFixture, policy) -> None:
    experiment = named()["ablation"]
    problem = problem_of(experiment, load(experiment))
    found = benchmark.pedantic(policy, (problem,), rounds=3, warmup_rounds=1)
    seconds = benchmark.stats.stats.median
    benchmark.extra_info |= {
        "simulations": found.simulations,
        "million_requests_per_s": found.walked / seconds / 1e6,
    }


@pytest.mark.benchmark(group="beta figure")
def test_all_points_of_s1_on_one_core(benchmark: BenchmarkFixture) -> None:
    warm()
    cases = list(points(grids()["s1-maf1"]))

    def figure() -> None:
        for case in cases:
            answer(case.experiment, case.method)

    benchmark.pedantic(figure, rounds=1)
    benchmark.extra_info |= {"points": len(cases)}


@pytest.mark.parametrize("kind", ["fast", "batching", "events"])
@pytest.mark.benchmark(group="beta simulators")
def test_simulator(benchmark: BenchmarkFixture, kind: str) -> None:
    experiment = SWEEPS["rate"](named()["fig4"], 20)
    loaded = load(experiment)
    placement = greedy(problem_of(experiment, loaded), (Config(1, 8),)).placement
    models = loaded.models
    problem = problem_of(experiment, loaded)
    tables = problem.tables(placement.configs())
    play = {
        "fast": lambda: fast.simulate(loaded.test, placement, tables),
        "batching": lambda: batching.simulate(loaded.test, placement, models),
        "events": lambda: events.simulate(loaded.test, placement, models),
    }[kind]
    benchmark.pedantic(play, rounds=2, warmup_rounds=1)
    seconds = benchmark.stats.stats.median
    benchmark.extra_info |= {"million_requests_per_s": len(loaded.test) / seconds / 1e6}


@pytest.mark.benchmark(group="beta bound")
def test_bound(benchmark: BenchmarkFixture) -> None:
    experiment = named()["s1-maf1"]
    problem = problem_of(experiment, load(experiment))
    benchmark.pedantic(upper_bound, (problem,), rounds=3, warmup_rounds=1)


@pytest.mark.parametrize("method", ["sr-greedy", "mp-search"])
@pytest.mark.benchmark(group="beta, 2.5 million requests, whole process")
def test_many_requests(benchmark: BenchmarkFixture, tmp_path: Path, method: str) -> None:
    traffic = msgspec.structs.replace(named()["s1-maf2"].traffic, rate_scale=21.0)
    setting = f"traffic.rate_scale={traffic.rate_scale}"
    command = [sys.executable, "-m", "beta", "plan", "s1-maf2", "--method", method]

    def plan() -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        arguments = [*command, "--set", setting, "--out", str(tmp_path)]
        subprocess.run(arguments, env=environment, check=True, capture_output=True)

    benchmark.pedantic(plan, rounds=1)
    record = json.loads((tmp_path / "beta/own.jsonl").read_text().splitlines()[-1])
    peak = record["peak_rss"] / 1e6
    benchmark.extra_info |= {"peak_rss_mb": peak}
    assert peak < 1000
