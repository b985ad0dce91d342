"""Simulations against the artifact's, to the printed digit and to the last event."""

import pytest

from helix.inputs.workload import Scheduler
from helix.simulate.metrics import Outcome, percentiles, pooled
from helix.simulate.simulate import simulate
from helix.simulate.switches import compat
from helix.simulate.workload import Offline
from tests.helix.golden_runs import (
    GOLDEN_RUNS,
    LOADS,
    golden_system,
    scheduler,
    separate_systems,
    systems,
    workload,
)

SHORT = [run for run in LOADS if ".offline." in run and ("helix" in run or "geo" in run)]


def simulated(run: str) -> list[Outcome]:
    return [
        simulate(system, workload(run, part), scheduler(run), switches=compat())
        for part, system in enumerate(systems(run))
    ]


def check(run: str) -> None:
    outcomes, golden = simulated(run), GOLDEN_RUNS[run]
    for ours, theirs in zip(outcomes, golden["parts"], strict=True):
        assert ours.decode_tokens_per_s == pytest.approx(theirs["decode"], rel=1e-9)
        assert len(ours.prompt_s) == theirs["prompts"]
        assert ours.events == theirs["events"]
        assert ours.rejected == theirs["rejected"]
        assert ours.finished == theirs["finishedQ"]
        assert ours.most_active == theirs["maxActive"]
        assert ours.prompt_s.mean() == pytest.approx(theirs["avgP"], abs=5.1e-5)
        assert ours.decode_s.mean() == pytest.approx(theirs["avgD"], abs=5.1e-5)
    decode, prompt_s, decode_s = pooled(outcomes)
    assert decode == pytest.approx(golden["decode_tokens_per_s"], rel=1e-9)
    for latencies, kind in ((prompt_s, "prompt"), (decode_s, "decode")):
        expected = golden[f"{kind}_latency_p5_25_50_75_95"]
        assert percentiles(latencies) == pytest.approx(expected, abs=5.1e-5)


@pytest.mark.parametrize("run", SHORT)
def test_short_runs_are_the_artifacts(run: str) -> None:
    check(run)


@pytest.mark.slow
@pytest.mark.parametrize("run", [run for run in LOADS if run not in SHORT])
def test_other_runs_are_the_artifacts(run: str) -> None:
    check(run)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shipped", "scheduler", "initial", "published"),
    [
        ("geo.llama70b.swarm", "maxflow", 20, "41.6"),
        ("geo.llama70b.ilp_paper(request_scheduling)", "maxflow", 20, "99.8"),
        ("geo.llama70b.ilp_paper(request_scheduling)", "swarm", 180, "81.7"),
        ("geo.llama70b.ilp_paper(request_scheduling)", "random", 180, "87.4"),
        ("geo.llama70b.ilp_paper(request_scheduling)", "shortest_queue", 180, "83.6"),
        ("het.llama70b.swarm", "swarm", 500, "473.2"),
        ("het.llama70b.ilp_unpruned", "maxflow", 20, "574.2"),
    ],
)
def test_other_published_simulations(
    shipped: str, scheduler: Scheduler, initial: int, published: str
) -> None:
    system = golden_system(shipped)
    outcome = simulate(system, Offline(initial=initial), scheduler, switches=compat())
    assert f"{outcome.decode_tokens_per_s:.1f}" == published


@pytest.mark.slow
@pytest.mark.parametrize(
    ("solution", "initials", "published"),
    [("separate", (1, 60, 35, 110), "219.3"), ("separate_plus", (1, 60, 35, 110, 90), "285.1")],
)
def test_pipelines_of_the_high_heterogeneity_cluster(
    solution: str, initials: tuple[int, ...], published: str
) -> None:
    total = 0.0
    parts = separate_systems(f"het.llama70b.{solution}")
    for system, initial in zip(parts, initials, strict=True):
        outcome = simulate(system, Offline(initial=initial), "random", switches=compat())
        total += outcome.decode_tokens_per_s
    assert f"{total:.1f}" == published
