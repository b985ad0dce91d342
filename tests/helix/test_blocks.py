"""Rows of blocks: what they promise is what the maximum flow says."""

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix.inputs.cluster import FIRST, SINK, SOURCE
from helix.inputs.generate import even
from helix.inputs.model import known_models
from helix.inputs.profile import shipped_profiles
from helix.paper.experiments import flow_search
from helix.plan.blocks import blocks, most_layers, row_of_blocks
from helix.plan.bounds import capped_compute_bound, chain_value
from helix.plan.flow_graph import placement_flow
from helix.plan.placement import UNUSED, wired
from helix.plan.question import Question, ask
from helix.plan.throughput import throughput

CHAIN, KNOWN, TARGET = 5441.14, 5813.7, 6000.0  # on 42 machines: a chain, annealing alone


@pytest.fixture(scope="module")
def het() -> Question:
    return ask(flow_search("het"))


def test_on_42_machines_branches_side_by_side_pass_more_than_chains_and_annealing(
    het: Question,
) -> None:
    runs = blocks(het.cluster, het.model.layers, het.speed)
    placement = wired(het.model.layers, runs, het.cluster.links)
    flow = placement_flow(het.cluster, het.model, placement, het.speed).value
    assert CHAIN < KNOWN < TARGET < flow < het.bound()
    for node, (start, end) in zip(het.cluster.nodes, runs, strict=True):
        assert (start, end) == UNUSED or 0 <= start < end <= het.model.layers
        assert end - start <= het.profiles[node.kind].max_layers
    assert flow == pytest.approx(by_networkx(het, runs), rel=1e-9)


def by_networkx(question: Question, runs: tuple[tuple[int, int], ...]) -> float:
    """The flow of a placement by an independent solver on a graph built here (bytes as in 7.1)."""
    token, hop = 2, 2 + 16384
    graph = nx.DiGraph()
    for i, (node, (start, end)) in enumerate(zip(question.cluster.nodes, runs, strict=True)):
        if end > start:
            rate = question.speed.rate(node.kind, end - start)
            card_in, card_out = node.machine.nic_in / hop, node.machine.nic_out / hop
            graph.add_edge(("in", i), ("out", i), capacity=min(rate, card_in, card_out))
    for link in question.cluster.links:
        tail, head = link.tail - FIRST, link.head - FIRST
        if link.tail == SOURCE and runs[head][0] == 0 < runs[head][1]:
            graph.add_edge("source", ("in", head), capacity=link.bandwidth / token)
        elif link.head == SINK and runs[tail][1] == question.model.layers:
            graph.add_edge(("out", tail), "sink", capacity=link.bandwidth / token)
        elif link.tail >= FIRST and link.head >= FIRST and 0 < runs[tail][1] == runs[head][0]:
            graph.add_edge(("out", tail), ("in", head), capacity=link.bandwidth / hop)
    return float(nx.maximum_flow_value(graph, "source", "sink"))


def test_blocks_need_no_more_machines_than_there_are_and_reach_the_target(het: Question) -> None:
    counts = het.cluster.kind_counts()
    rates = {kind: het.speed.rates(kind) for kind in counts}
    row = row_of_blocks(rates, counts, het.model.layers, TARGET)
    assert row is not None
    assert sum(block.layers for block in row) == het.model.layers
    branches = [branch for block in row for branch in block.branches]
    for kind, count in counts.items():
        assert sum(branch.machines.get(kind, 0) for branch in branches) <= count
    for block in row:
        assert sum(branch.rate for branch in block.branches) >= TARGET * (1 - 1e-9)
        for branch in block.branches:
            held = [
                number * most_layers(rates[kind], branch.rate)
                for kind, number in branch.machines.items()
            ]
            assert sum(held) >= block.layers


@pytest.mark.parametrize("target", [7000.0, 1e6])
def test_no_row_passes_more_than_the_bound(het: Question, target: float) -> None:
    counts = het.cluster.kind_counts()
    rates = {kind: het.speed.rates(kind) for kind in counts}
    assert row_of_blocks(rates, counts, het.model.layers, target) is None


machines = st.fixed_dictionaries(
    {"A100": st.integers(2, 5), "L4": st.integers(6, 12), "T4": st.integers(0, 6)}
)


@given(machines.map(lambda counts: {kind: n for kind, n in counts.items() if n}))
@settings(max_examples=5)
def test_on_any_machines_a_row_is_between_the_best_chain_and_the_bound(
    counts: dict[str, int],
) -> None:
    cluster, model = even(counts), known_models()["llama2_70b"]
    speed = throughput(model, shipped_profiles("llama2_70b"), counts)
    rates = [speed.rates(node.kind) for node in cluster.nodes]
    if sum(map(len, rates)) < model.layers:
        return
    placement = wired(model.layers, blocks(cluster, model.layers, speed), cluster.links)
    flow = placement_flow(cluster, model, placement, speed).value
    assert chain_value(rates, model.layers) * (1 - 1e-9) <= flow
    assert flow <= capped_compute_bound(rates, model.layers) * (1 + 1e-9)
