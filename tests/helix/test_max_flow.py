"""The compiled maximum flow against its readable twin and another library's."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix.plan.max_flow import max_flow, readable_max_flow

VERTICES = 7
arcs = st.lists(
    st.tuples(
        st.integers(0, VERTICES - 1),
        st.integers(0, VERTICES - 1),
        st.one_of(st.integers(0, 9).map(float), st.floats(0, 1e4)),
    ).filter(lambda arc: arc[0] != arc[1]),
    min_size=1,
    max_size=25,
    unique_by=lambda arc: arc[:2],
)


@given(arcs)
def test_flow_is_maximal_and_kept_at_every_vertex(graph: list[tuple[int, int, float]]) -> None:
    tails, heads, capacities = (np.array(column) for column in zip(*graph, strict=True))
    flow = max_flow(VERTICES, tails, heads, capacities, 0, 1)
    assert (flow >= 0).all()
    assert (flow <= capacities + 1e-6).all()
    through = np.zeros(VERTICES)
    np.add.at(through, tails, flow)
    np.subtract.at(through, heads, flow)
    assert through[2:] == pytest.approx(np.zeros(VERTICES - 2), abs=1e-6)
    theirs = nx.DiGraph()
    theirs.add_nodes_from(range(VERTICES))
    for tail, head, capacity in graph:
        theirs.add_edge(tail, head, capacity=capacity)
    assert through[0] == pytest.approx(nx.maximum_flow_value(theirs, 0, 1), abs=1e-6)


@given(arcs)
def test_kernel_and_its_twin_agree_arc_for_arc(graph: list[tuple[int, int, float]]) -> None:
    tails, heads, capacities = (np.array(column) for column in zip(*graph, strict=True))
    ours = max_flow(VERTICES, tails, heads, capacities, 0, 1)
    assert ours.tolist() == readable_max_flow(VERTICES, tails, heads, capacities, 0, 1).tolist()
