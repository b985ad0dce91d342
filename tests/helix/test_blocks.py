"""Rows of blocks: what they promise is what the maximum flow says."""

import pytest

from helix.experiments import flow_search
from helix.plan.blocks import blocks, row_of_blocks
from helix.plan.flow_graph import placement_flow
from helix.plan.methods import ask
from helix.plan.placement import wired


def test_on_42_machines_branches_side_by_side_pass_more_than_the_best_chain() -> None:
    question = ask(flow_search("het"))
    runs = blocks(question.cluster, question.model.layers, question.speed)
    placement = wired(question.model.layers, runs, question.cluster.links)
    flow = placement_flow(question.cluster, question.model, placement, question.speed).value
    assert 5441.14 < flow < question.bound()


def test_blocks_need_no_more_machines_than_there_are_and_reach_the_target() -> None:
    question = ask(flow_search("het"))
    counts = question.cluster.kind_counts()
    rates = {kind: question.speed.rates(kind) for kind in counts}
    row = row_of_blocks(rates, counts, question.model.layers, 5000.0)
    assert row is not None
    assert sum(block.layers for block in row) >= question.model.layers
    for kind, count in counts.items():
        assert sum(block.used().get(kind, 0) for block in row) <= count
    for block in row:
        for branch in block.branches:
            held = -(-block.layers // branch.machines)
            assert rates[branch.kind][held - 1] == branch.rate
        assert sum(branch.rate for branch in block.branches) >= 5000.0


@pytest.mark.parametrize("target", [7000.0, 1e6])
def test_no_row_passes_more_than_the_bound(target: float) -> None:
    question = ask(flow_search("het"))
    counts = question.cluster.kind_counts()
    rates = {kind: question.speed.rates(kind) for kind in counts}
    assert row_of_blocks(rates, counts, question.model.layers, target) is None
