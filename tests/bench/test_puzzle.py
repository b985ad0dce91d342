"""Speed of Puzzle's planning (`make bench`); never in the test run.

Targets, on 2 cores: the switch of 33B on 32 ranks under 1 s, the planner for 33B/7B on 32 devices
under 20 s, the fused order of 16 stages and 64 micro-batches under 5 s.
"""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from puzzle import planner
from puzzle.experiments import named
from puzzle.inputs.layout import Layout
from puzzle.inputs.model import known_models
from puzzle.plan.fused import fused_programs
from puzzle.plan.plans import switch_of
from puzzle.plan.reshard import make_reshard_plan
from puzzle.simulate.predict import fused_time


@pytest.mark.benchmark(group="puzzle switch, 33B on 32 ranks")
@pytest.mark.parametrize("mapping", ["original", "interleaved", "overlap"])
def test_switch(benchmark: BenchmarkFixture, mapping: str) -> None:
    train, generate = Layout(pipeline=32), Layout(pipeline=8, tensor=4)
    model = known_models()["33b"]
    plan = benchmark.pedantic(
        make_reshard_plan, (train, generate, model, mapping), rounds=3, iterations=1
    )
    assert plan.places
    assert benchmark.stats["min"] < 1


@pytest.mark.benchmark(group="puzzle planner, 33B/7B on 32 devices")
def test_planner(benchmark: BenchmarkFixture) -> None:
    def search() -> int:
        for cached in (switch_of, fused_programs, fused_time):
            cached.cache_clear()
        return len(planner.search(named()["phoenix-33b-7b"]))

    assert benchmark.pedantic(search, rounds=1, iterations=1) == planner.SHOWN
    assert benchmark.stats["min"] < 20


@pytest.mark.benchmark(group="puzzle fused order, 16 stages, 64 micro-batches")
def test_fused(benchmark: BenchmarkFixture) -> None:
    def find() -> int:
        fused_programs.cache_clear()
        return len(fused_programs(16, 64))

    assert benchmark.pedantic(find, rounds=1, iterations=1) == 16
    assert benchmark.stats["min"] < 5
