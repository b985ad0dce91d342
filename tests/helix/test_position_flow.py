"""The MILP over kinds and positions: proofs, and placements that carry what it promises."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from helix.inputs.cluster import Cluster
from helix.inputs.generate import CLUSTERS, even
from helix.plan.bounds import capped_compute_bound, chain_value
from helix.plan.flow_graph import placement_flow
from helix.plan.pipelines import best_chain
from helix.plan.placement import UNUSED, wired
from helix.plan.position_flow import links_never_bind, position_flow, position_matrices
from helix.plan.solvers_result import Settings
from tests.helix.golden_inputs import shipped_intervals, situation

FAST = Settings(max_run_time=0.4, gap=1e-6)
PROVED = {
    "single.llama70b.ilp": 2045.641,
    "single.llama30b.ilp.t4": 397.685,
    "single.llama30b.ilp.a100": 1044.533,
}
FOUND = {"single.llama30b.ilp.l4": 252.65, "quality10.llama30b.ilp": 286.587}


@pytest.mark.parametrize("shipped", PROVED)
def test_flow_optima_are_proved(shipped: str) -> None:
    cluster, model, _, speed = situation(shipped)
    plan = position_flow(cluster, model, speed, Settings(max_run_time=20, gap=1e-6))
    assert plan.solved.ended == "optimal"
    assert plan.solved.objective == pytest.approx(PROVED[shipped], abs=1e-3)
    assert plan.bound == pytest.approx(plan.solved.objective, rel=1e-6)
    flow = placement_flow(cluster, model, plan.placement, speed)
    assert flow.value == pytest.approx(plan.solved.objective, rel=1e-9)


@pytest.mark.parametrize("shipped", FOUND)
def test_flow_optima_that_resist_proof_are_found_at_once(shipped: str) -> None:
    cluster, model, _, speed = situation(shipped)
    plan = position_flow(cluster, model, speed, FAST)
    flow = placement_flow(cluster, model, plan.placement, speed)
    assert flow.value == pytest.approx(FOUND[shipped], abs=1e-3)
    assert plan.solved.objective <= plan.bound


@pytest.mark.parametrize("seconds", [1e-3, 0.1])
def test_a_known_placement_is_not_lost_however_short_the_time(seconds: float) -> None:
    shipped = "het.llama70b.ilp"
    cluster, model, _, speed = situation(shipped)
    start = wired(model.layers, shipped_intervals(shipped), cluster.links)
    plan = position_flow(cluster, model, speed, Settings(max_run_time=seconds), start=start)
    assert plan.solved.objective >= 4137.547
    assert plan.placement.layers == model.layers


def test_het42_is_no_worse_than_the_blocks_it_begins_with() -> None:
    cluster, model, _, speed = situation("het.llama70b.ilp")
    plan = position_flow(cluster, model, speed, Settings(max_run_time=1))
    flow = placement_flow(cluster, model, plan.placement, speed).value
    assert 6000 < flow <= plan.bound


def test_the_problem_of_single24_has_the_expected_size() -> None:
    cluster, model, _, speed = situation("single.llama70b.ilp")
    counts = cluster.kind_counts()
    table = {kind: speed.rates(kind) for kind in counts}
    held, matrices = position_matrices(table, counts, model.layers, 2045.641)
    assert len(held) == 894 + 539 + 314
    assert matrices.variables == 3495
    assert matrices.constraints == len(held) + 3 + 80


counts = st.fixed_dictionaries({"A100": st.integers(3, 6), "T4": st.integers(0, 9)})


@given(counts.map(lambda c: {kind: n for kind, n in c.items() if n}))
@settings(deadline=None, max_examples=6)
def test_any_plan_keeps_its_promise(machines: dict[str, int]) -> None:
    _, model, _, speed = situation("single.llama30b.swarm")
    cluster = even(machines)
    if sum(len(speed.rates(node.kind)) for node in cluster.nodes) < model.layers:
        with pytest.raises(InputError, match="60 layers do not fit"):
            position_flow(cluster, model, speed, FAST)
        return
    plan = position_flow(cluster, model, speed, FAST)
    flow = placement_flow(cluster, model, plan.placement, speed).value
    assert flow == pytest.approx(plan.solved.objective, rel=1e-6)
    rates = [speed.rates(node.kind) for node in cluster.nodes]
    assert chain_value(rates, model.layers) <= flow * (1 + 1e-9)
    assert flow <= capped_compute_bound(rates, model.layers) * (1 + 1e-9)


@pytest.mark.parametrize("shipped", [*PROVED, *FOUND, "het.llama70b.ilp"])
def test_the_best_chain_is_worth_the_chain_value(shipped: str) -> None:
    cluster, model, _, speed = situation(shipped)
    rates = [speed.rates(node.kind) for node in cluster.nodes]
    flow, intervals = best_chain(rates, model.layers)
    assert flow == pytest.approx(chain_value(rates, model.layers))
    runs = sorted(run for run in intervals if run != UNUSED)
    assert [start for start, _ in runs] == [0, *(end for _, end in runs[:-1])]
    assert runs[-1][1] == model.layers
    worst = min(own[e - s - 1] for own, (s, e) in zip(rates, intervals, strict=True) if e > s)
    assert worst == flow


def test_no_chain_of_machines_that_are_too_small() -> None:
    assert best_chain([[3.0, 2.0], [5.0]], 4) == (0.0, (UNUSED, UNUSED))
    assert best_chain([[3.0, 2.0], [5.0]], 2) == (3.0, ((0, 1), (1, 2)))


def test_slow_or_missing_links_are_refused() -> None:
    cluster, model, _, speed = situation("geo.llama70b.ilp")
    assert not links_never_bind(cluster, model, 2045.641)
    with pytest.raises(InputError, match="use search or milp"):
        position_flow(cluster, model, speed)
    whole: Cluster = CLUSTERS["single24"]()
    assert links_never_bind(whole, model, 2045.641)
    assert not links_never_bind(whole, model, 1e9)
    gap = msgspec.structs.replace(whole, links=whole.links[1:])
    assert not links_never_bind(gap, model, 2045.641)
