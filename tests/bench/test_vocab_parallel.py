"""Speed of Vocabulary Parallelism's planning and layers (`make bench`); never in the test run.

Targets, on 2 cores: one 40-row table simulated under 5 s, one method's schedule of 32 ranks and 512
micro-batches under 1 s, `plan` with all nine methods under 5 s as a whole process.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from vocab_parallel.experiments import FIVE, SEQUENCES, VOCABULARIES, named, short
from vocab_parallel.plan.check import find_faults
from vocab_parallel.plan.methods import METHODS, make_schedule
from vocab_parallel.plan.plans import make_plan
from vocab_parallel.run.output import Algorithm, Rules, Shard, combine, s_pass, shard_labels, t_pass
from vocab_parallel.simulate.predict import predict

ROOT = Path(__file__).parents[2]
SETTINGS = [f"paper-{s}-{short(v)}" for s in SEQUENCES for v in VOCABULARIES]


def simulate_table() -> int:
    cases = [(named()[name], method) for name in SETTINGS for method in FIVE]
    return len([predict(make_plan(experiment, method)).mfu for experiment, method in cases])


@pytest.mark.benchmark(group="vocab 40-row table")
def test_table(benchmark: BenchmarkFixture) -> None:
    assert benchmark.pedantic(simulate_table, rounds=3, iterations=1, warmup_rounds=1) == 40


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.benchmark(group="vocab schedule, 32 ranks, 512 micro-batches")
def test_schedule(benchmark: BenchmarkFixture, method: str) -> None:
    schedule = benchmark.pedantic(
        make_schedule, (method, 32, 512), rounds=3, iterations=1, warmup_rounds=1
    )
    benchmark.extra_info |= {"passes": sum(map(len, schedule.programs))}


@pytest.mark.benchmark(group="vocab checker, 8 ranks, 128 micro-batches")
def test_checker(benchmark: BenchmarkFixture) -> None:
    schedule = make_schedule("vocab-2", 8, 128)
    assert benchmark.pedantic(find_faults, (schedule,), rounds=3, iterations=1) == ()


@pytest.mark.parametrize("algorithm", ["vocab-1", "vocab-2", "vocab-2-published"])
@pytest.mark.benchmark(group="vocab S and T, 512 tokens, hidden 256, 4000 rows, one thread")
def test_output_layer(benchmark: BenchmarkFixture, algorithm: Algorithm) -> None:
    torch.set_num_threads(1)
    x, weight = torch.randn(512, 256), torch.randn(4000, 256)
    shard, rules = Shard(weight, 0, 4000, 4000), Rules(algorithm)
    labels = shard_labels(torch.arange(512), torch.ones(512), shard)

    def both() -> None:
        passed = s_pass(x, shard, labels, rules)
        found = combine(passed.local[None], 0, shard, labels, rules)
        t_pass(x, passed, found, shard, labels, rules)

    benchmark.pedantic(both, rounds=5, iterations=1, warmup_rounds=1)


@pytest.mark.benchmark(group="vocab plan, whole process")
def test_whole_process(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vocab_parallel", "plan", "seed-4096-256k", "--out"]

    def plan() -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run([*command, str(tmp_path)], env=environment, check=True, capture_output=True)

    benchmark.pedantic(plan, rounds=2, iterations=1, warmup_rounds=1)
