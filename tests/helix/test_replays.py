"""The paper's runs as experiments, and the published figures they are set beside."""

import msgspec
import pytest

from common.report import claims_of
from helix.artifact import ARTIFACT
from helix.paper.experiments import named, suites
from helix.paper.published import deep_dive, milp_incumbents, printed
from helix.paper.replays import MODES, REPLAYS, mended
from helix.plan.methods import make_plan
from helix.plan.question import ask
from helix.simulate.judge import Simulations
from helix.simulate.metrics import pooled
from helix.simulate.service import serve


@pytest.mark.parametrize("suite", ["quick", "full"])
def test_suites_name_experiments_and_every_claim_has_its_case(suite: str) -> None:
    cases = {(case.verb, case.experiment.name) for case in suites()[suite]}
    assert {experiment for _, experiment in cases} <= set(named())
    claims = [claim for claim in claims_of(ARTIFACT) if suite in claim.suites]
    assert claims
    for claim in claims:
        assert (claim.case["verb"], claim.experiment) in cases


def test_every_replay_of_sections_6_3_to_6_5_has_a_printed_block() -> None:
    for where, model, system in REPLAYS:
        for mode in MODES:
            assert printed(where, model, system, mode) is not None, (where, model, system, mode)


def test_deep_dives_and_solver_traces_are_found() -> None:
    assert deep_dive("6.7", "shortest_queue").decode == 83.6
    assert deep_dive("6.6", "petals", "prototype").decode == 194.5
    assert deep_dive("6.6", "nobody") is None
    assert milp_incumbents("quality10-milp")[-1] == (2417.0, 286.587)


def rate(name: str, initial: int = 0) -> float:
    experiment = named()[name]
    simulator = Simulations(experiment, ask(experiment), 0)
    plan = make_plan(experiment, experiment.search.method, "flow", 0, simulator, lambda _: None)
    return pooled(list(serve(plan, experiment, 0).outcomes.values()))[0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("geo-scheduling-swarm", 81.7),
        ("geo-scheduling-random", 87.4),
        ("geo-scheduling-shortest_queue", 83.6),
        ("geo-placement-swarm", 41.6),
        ("het-llama70b-separate-offline", 219.3),
        ("het-llama70b-sp_plus-offline", 285.1),
    ],
)
def test_deep_dives_and_sp_come_out_to_the_printed_digit(name: str, expected: float) -> None:
    assert rate(name) == pytest.approx(expected, abs=0.05)


def test_a_mended_fault_changes_nothing_else() -> None:
    for one in mended():
        base, right = (msgspec.to_builtins(e) for e in (one.base, one.right))
        changed = {field for field in base if base[field] != right[field]} - {"name", "about"}
        # A smaller KV cache has to be offered less.
        assert changed == {"search", "workload"} if "KV" in one.what else len(changed) == 1


def test_the_larger_kv_cache_makes_the_published_baseline_better() -> None:
    (kv,) = [one for one in mended() if one.right.name == "fault-kv"]
    assert rate(kv.base.name) == pytest.approx(124.3, abs=0.05)
    assert rate(kv.right.name) < 60  # 40 of them are the other pipelines'
