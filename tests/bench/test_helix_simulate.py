"""Speed and memory of the Helix simulator against its targets (`make bench`).

Targets, on one core: LLaMA-2 70B offline on 24 machines (13.03 M events of the original, which
takes 760 CPU-s and 15.8 GB) in 5 CPU-s and 300 MB; all 24 published runs in 4 minutes.
"""

import resource

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from helix.simulate.engine import Engine
from helix.simulate.simulate import simulate
from helix.simulate.switches import compat
from helix.simulate.workload import Offline
from tests.helix.golden_runs import LOADS, golden_system, scheduler, systems, workload


def all_parts(run: str) -> int:
    return sum(
        simulate(system, workload(run, part), scheduler(run), switches=compat()).events
        for part, system in enumerate(systems(run))
    )


@pytest.mark.parametrize("run", LOADS)
@pytest.mark.benchmark(group="helix simulator, published runs")
def test_published_run(benchmark: BenchmarkFixture, run: str) -> None:
    systems(run)
    events = benchmark.pedantic(all_parts, (run,), rounds=1, iterations=1, warmup_rounds=0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    benchmark.extra_info |= {"events": events, "peak_rss_mb": peak}


@pytest.mark.benchmark(group="helix simulator, LLaMA-2 70B offline")
def test_helix_70b_offline(benchmark: BenchmarkFixture) -> None:
    system, load = golden_system("single.llama70b.ilp"), Offline(initial=20)
    outcome = benchmark.pedantic(
        simulate, (system, load), {"switches": compat()}, rounds=5, iterations=1, warmup_rounds=1
    )
    assert outcome.events == 13029117
    benchmark.extra_info["tokens_per_s"] = outcome.decode_tokens_per_s


@pytest.mark.benchmark(group="helix simulator, readable engine, 60 of 660 s")
def test_readable_engine(benchmark: BenchmarkFixture) -> None:
    system, load = golden_system("single.llama70b.ilp"), Offline(initial=20, duration_s=1.0)
    outcome = benchmark.pedantic(
        lambda: Engine(system, load, "maxflow", compat()).run(), rounds=1, iterations=1
    )
    benchmark.extra_info["events"] = outcome.events
