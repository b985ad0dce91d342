"""The default is never beaten by a method that is shipped, and says how good it may be."""

from typing import get_args

import pytest

import helix
from common.artifact import with_field
from common.errors import CaseError, InputError
from helix.inputs.cluster_source import ClusterSource, LinkSource, MachineGroup
from helix.inputs.experiment import ROOFLINE, Experiment, ProfileSource
from helix.inputs.links import Links
from helix.inputs.model_source import ModelSource
from helix.inputs.search import Method, SearchSettings
from helix.inputs.workload import WorkloadSettings
from helix.plan.answer import summary_of
from helix.plan.contest import score_of
from helix.plan.only import only_placement
from helix.plan.plans import Plan
from helix.plan.question import Served, ask
from tests.helix.random_clusters import drawn

SMALL = SearchSettings(chains=2, evaluations=3_000, simulations=12, time_limit_s=12)
SHORT = WorkloadSettings(duration_s=40, warm_up_s=20)


def rate(experiment: Experiment, plan: Plan) -> float:
    outcome = helix.simulate(experiment, plan)
    return {metric.name: metric.value for metric in outcome.metrics}["decode.throughput"]


def others(experiment: Experiment) -> dict[str, float]:
    """Return what every other method serves in the same time, of those that have an answer."""
    found = dict[str, float]()
    for method in get_args(Method):
        if method in ("portfolio", "published"):
            continue
        try:
            found[method] = rate(experiment, helix.plan(experiment, method=method))
        except (InputError, CaseError):
            continue
    return found


def holds(experiment: Experiment) -> None:
    plan = helix.plan(experiment)
    mine = rate(experiment, plan)
    assert plan.simulated is None or mine == pytest.approx(plan.simulated)
    stopped = {said.partition(":")[0] for said in plan.cut}
    for method, its in others(experiment).items():
        assert mine >= its or method in stopped, (method, plan.cut)
    assert plan.served_bound is not None
    assert mine <= plan.served_bound


def test_no_method_serves_more_than_the_default_on_a_drawn_cluster():
    holds(drawn(1, machines=(2, 4), search=SMALL, workload=SHORT))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [10, 12, 14, 18, 20, 21])
def test_no_method_serves_more_than_the_default_on_drawn_clusters(seed: int):
    holds(drawn(seed, machines=(2, 16), search=SMALL, workload=SHORT))


def far(workload: WorkloadSettings) -> Experiment:
    """Two L4 at home, and an H100 behind a link of 2 Mbit/s and 300 ms."""
    return Experiment(
        name="far",
        model=ModelSource(config="Llama-3-8B"),
        cluster=ClusterSource(
            machines=(
                MachineGroup(kind="L4", count=2, region="home"),
                MachineGroup(kind="H100", region="away"),
            ),
            coordinator_region="home",
            links=(LinkSource(between=("home", "away"), gbit_per_s=0.002, latency_ms=300),),
        ),
        profile=ProfileSource(source=ROOFLINE),
        search=SMALL,
        workload=workload,
    )


def test_a_fast_machine_behind_a_slow_link_is_used():
    experiment = far(WorkloadSettings(duration_s=100))
    plan = helix.plan(experiment)
    assert rate(experiment, plan) >= 933.3
    assert rate(experiment, plan) >= rate(experiment, helix.plan(experiment, method="search"))
    table = {one.method: one for one in plan.compared}
    assert {"separate", "homogeneous", "petals", "swarm", "flow", "search"} <= set(table)
    assert "a link is missing or may bind" in table["position"].said
    assert plan.compared[0].method == plan.found_by
    assert "of at most" in summary_of(plan)
    assert "gap" in summary_of(plan)


def test_the_objective_flow_takes_the_largest_flow_of_all_methods():
    experiment = with_field(far(SHORT), "search.objective", "flow")
    plan = helix.plan(experiment)
    for method in ("petals", "swarm", "separate", "homogeneous", "search"):
        assert plan.flow >= helix.plan(experiment, method=method).flow
    assert plan.simulations == 0


def test_where_nothing_is_decoded_in_the_window_the_flow_decides_and_it_is_said():
    experiment = far(WorkloadSettings(duration_s=0.001, warm_up_s=0))
    plan = helix.plan(experiment)
    assert plan.simulated == 0
    assert "0.0 simulated" in summary_of(plan)
    assert plan.flow == max(one.flow for one in plan.compared) > 0


def on(*groups: MachineGroup, layers_of: str = "Llama-3-8B") -> Experiment:
    return Experiment(
        name="trivial",
        model=ModelSource(config=layers_of),
        cluster=ClusterSource(machines=groups),
        profile=ProfileSource(source=ROOFLINE),
        workload=SHORT,
    )


def test_one_machine_has_one_placement_and_nothing_is_searched():
    plan = helix.plan(on(MachineGroup(kind="L4")))
    assert plan.services[0].intervals == ((0, 32),)
    assert (plan.found_by, plan.evaluations, plan.simulations) == ("the only placement", 0, 1)


def test_equal_machines_that_only_just_hold_the_model_have_one_placement():
    experiment = on(MachineGroup(kind="L4", count=2))
    question = ask(experiment)
    tight = question.profiles["L4"]
    half = type(tight)(
        prompt=tight.prompt, decode=tight.decode, limits=tight.limits[:16], memory=tight.memory
    )
    full = question._replace(profiles={"L4": half})
    assert only_placement(full) == ((0, 16), (16, 32))
    assert only_placement(question) is None  # each holds all of it
    links = question.cluster.links
    slower = links[0].__class__(links[0].tail, links[0].head, 1e6, 0.1)
    uneven = type(question.cluster)(
        nodes=question.cluster.nodes, links=Links.of([slower, *links[1:]])
    )
    assert only_placement(full._replace(cluster=uneven)) is None


def test_latency_decides_between_near_rates_online_and_full_caches_lose_to_all():
    quick, slow = Served(100.0, 5.0, False), Served(100.1, 50.0, False)
    more, full = Served(101.0, 50.0, False), Served(200.0, 1.0, True)
    score = [score_of(one, online=True) for one in (full, slow, quick, more)]
    assert score == sorted(score)
    assert score_of(slow, online=False) > score_of(quick, online=False)


def test_a_workload_of_arrivals_is_planned_for_and_shared_by_the_services():
    experiment = far(WorkloadSettings(mode="online", tokens_per_s=400.0, duration_s=40))
    plan = helix.plan(experiment)
    assert plan.compared[0].seconds is not None
    separate = helix.plan(experiment, method="separate")
    outcome = helix.simulate(experiment, separate).value
    assert len(outcome) == 2
    served = sum(one.decode_tokens_per_s for one in outcome.values())
    assert served < 400


def test_an_answer_on_some_of_the_machines_is_tried_with_every_split():
    """A T4 holds too little to serve alone, so that one service stands on the two others."""
    groups = MachineGroup(kind="T4"), MachineGroup(kind="H100", count=2)
    experiment = with_field(on(*groups, layers_of="Qwen3-32B"), "search", SMALL)
    experiment = with_field(experiment, "search.time_limit_s", 8.0)
    alone = helix.plan(experiment, method="separate")
    assert [service.machines for service in alone.services] == [(1, 2)]
    plan = helix.plan(experiment)
    assert rate(experiment, plan) >= rate(experiment, alone)
    # Its flow is by a throughput model of its own: the whole cluster's bound is none of it.
    assert not alone.bounded
    assert "bound" not in summary_of(alone).partition(";")[0]
    whole = helix.plan(experiment, method="position")
    assert whole.bounded
    assert whole.flow <= whole.bound
