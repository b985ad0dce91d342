"""What each machine contributes: the flow of the same placement with the machine's links gone."""

import pytest

import helix
from helix.inputs.cluster import FIRST
from helix.inputs.cluster_source import ClusterSource, MachineGroup
from helix.inputs.experiment import ROOFLINE, Experiment, ProfileSource
from helix.inputs.model_source import ModelSource
from helix.inputs.search import Method, SearchSettings
from helix.plan.flow_graph import placement_flow
from helix.plan.placement import UNUSED, Placement
from helix.plan.plans import Plan
from helix.plan.question import ask
from helix.plan.show import plan_table


def planned(method: Method) -> tuple[Experiment, Plan, dict[int, float]]:
    experiment = Experiment(
        name="six",
        model=ModelSource(config="Llama-3-8B"),
        cluster=ClusterSource(
            machines=(MachineGroup(kind="L4", count=4), MachineGroup(kind="H100", count=2))
        ),
        profile=ProfileSource(source=ROOFLINE),
        search=SearchSettings(method=method, stages=2),
    )
    plan = helix.plan(experiment)
    return experiment, plan, {one.machine: one.flow for one in plan.without}


def test_what_is_left_is_the_flow_of_the_placement_without_the_machine():
    experiment, plan, without = planned("swarm")
    (one,), question = plan.services, ask(experiment)
    assert set(without) == {i for i, run in enumerate(one.intervals) if run != UNUSED}
    placement = one.placement(question.cluster)
    for machine, left in without.items():
        place = machine + FIRST
        links = tuple(link for link in placement.links if place not in (link.tail, link.head))
        cut = Placement(layers=one.layers, intervals=one.intervals, links=links)
        flow = placement_flow(question.cluster, question.model, cut, question.speed)
        assert left == pytest.approx(flow.value, rel=1e-9, abs=1e-6)
        assert left <= plan.flow * (1 + 1e-9)


def test_without_one_of_its_machines_a_pipeline_passes_nothing_and_the_others_go_on():
    _, plan, without = planned("separate")
    assert without
    for one in plan.services:
        for machine in one.machines:
            assert without[machine] == pytest.approx(plan.flow - one.flow, abs=1e-6)
    column = next(c for c in plan_table(plan).columns if c.header == "if lost")
    lost = [100 * one.flow / plan.flow for one in plan.services for _ in one.machines]
    assert list(column.cells) == [f"-{share:.0f} %" for share in lost]


def test_where_there_is_too_much_to_compute_it_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("helix.plan.sensitivity.MOST", 1)
    _, plan, without = planned("swarm")
    assert without == {}
    assert any("what each machine contributes is not computed" in note for note in plan.notes)
