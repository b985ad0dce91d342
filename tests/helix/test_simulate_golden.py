"""Simulations against the artifact's, to the printed digit and to the last event."""

import pytest

from helix.simulate.metrics import Outcome, percentiles, pooled
from helix.simulate.simulate import simulate
from helix.simulate.switches import compat
from tests.helix.golden_runs import GOLDEN_RUNS, KINDS, LOADS, golden_system, workload


def simulated(run: str) -> list[Outcome]:
    where, model, _, method = run.split(".")
    if method == "helix":
        parts = [f".{kind}" for kind in KINDS] if model == "llama30b" else [""]
        systems = [golden_system(f"{where}.{model}.ilp{part}") for part in parts]
        return [
            simulate(system, workload(run, part), switches=compat())
            for part, system in enumerate(systems)
        ]
    raise NotImplementedError(run)


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


@pytest.mark.parametrize("run", [run for run in LOADS if run.endswith("offline.helix")])
def test_offline_helix_runs_are_the_artifacts(run: str) -> None:
    check(run)


@pytest.mark.slow
@pytest.mark.parametrize("run", [run for run in LOADS if run.endswith("online.helix")])
def test_online_helix_runs_are_the_artifacts(run: str) -> None:
    check(run)
