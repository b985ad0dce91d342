"""The cheapest maximum flow against another library's, and what it does for a placement."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix.plan.flow_graph import least_latency_flow, placement_flow
from helix.plan.min_cost_flow import min_cost_max_flow
from helix.plan.placement import wired
from tests.helix.golden_inputs import SHIPPED, shipped_intervals, situation

VERTICES = 6
arcs = st.lists(
    st.tuples(
        st.integers(0, VERTICES - 1),
        st.integers(0, VERTICES - 1),
        st.integers(0, 9),
        st.integers(0, 5),
    ).filter(lambda arc: arc[0] != arc[1]),
    min_size=1,
    max_size=20,
    unique_by=lambda arc: arc[:2],
)


@given(arcs)
def test_flow_is_maximal_and_no_maximal_flow_is_cheaper(
    graph: list[tuple[int, int, int, int]],
) -> None:
    tails, heads, capacities, costs = (np.array(column) for column in zip(*graph, strict=True))
    flow = min_cost_max_flow(
        VERTICES, tails, heads, capacities.astype(float), costs.astype(float), 0, 1
    )
    theirs = nx.DiGraph()
    theirs.add_nodes_from(range(VERTICES))
    for tail, head, capacity, cost in graph:
        theirs.add_edge(tail, head, capacity=capacity, weight=cost)
    expected = nx.max_flow_min_cost(theirs, 0, 1)
    assert flow @ costs == pytest.approx(nx.cost_of_flow(theirs, expected))
    assert flow[tails == 0].sum() - flow[heads == 0].sum() == pytest.approx(
        nx.maximum_flow_value(theirs, 0, 1)
    )


@pytest.mark.parametrize("shipped", SHIPPED)
def test_the_split_keeps_the_value_and_is_the_same_every_time(shipped: str) -> None:
    cluster, model, profiles, speed = situation(shipped)
    placement = wired(model.layers, shipped_intervals(shipped), cluster.links)
    split = least_latency_flow(cluster, model, profiles, placement, speed)
    plain = placement_flow(cluster, model, placement, speed)
    assert split.value == pytest.approx(plain.value, rel=1e-12)
    assert split == least_latency_flow(cluster, model, profiles, placement, speed)
