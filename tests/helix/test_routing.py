"""Routing and KV expectation: what every choice keeps."""

from hypothesis import given
from hypothesis import strategies as st

from helix.inputs.cluster import SINK, SOURCE
from helix.plan.kv_expectation import Holding, KvExpectation
from helix.plan.routing import FlowRouting, Hop

COORDINATOR = [Holding(0, 0, 0), Holding(0, 0, 0)]


def two_ways(first: float, second: float, entries: int = 10**9) -> FlowRouting:
    """Return a routing of two machines side by side, each with the whole model of 4 layers."""
    kv = KvExpectation([*COORDINATOR, Holding(0, 4, entries), Holding(0, 4, entries)], 0.85)
    ends = [(SOURCE, 2, first), (SOURCE, 3, second), (2, SINK, first), (3, SINK, second)]
    hops = [Hop(tail, head, flow, 4 if head == SINK else 0) for tail, head, flow in ends]
    return FlowRouting(hops, [0, 0, 2048, 2048], kv)


@given(st.lists(st.integers(1, 2048), min_size=1, max_size=60), st.floats(1, 100))
def test_loads_stay_even(lengths: list[int], ratio: float) -> None:
    routing = two_ways(10.0 * ratio / (ratio + 1) + 1, 10.0 / (ratio + 1) + 1)
    for length in lengths:
        assert routing.route(length)
    one, other = routing.load[0], routing.load[1]
    assert abs(one - other) <= 2048 / min(routing.hops[0].flow, routing.hops[1].flow) + 1e-9


def test_a_link_with_little_flow_is_left_out() -> None:
    routing = two_ways(96.0, 4.0)
    assert {routing.route(100) for _ in range(200)} == {(0, 2)}


def test_a_full_service_refuses_and_forgets_the_attempt() -> None:
    routing = two_ways(10.0, 10.0, entries=4 * 2000)
    taken = [route for route in (routing.route(500) for _ in range(10)) if route]
    assert len(taken) == 4
    before = list(routing.load)
    assert routing.route(500) is None
    assert routing.load == before
    assert routing.kv.bottleneck() == 4 * 740 / 4000
    routing.finish(taken[0], 500)
    assert routing.route(500) is not None


@given(st.lists(st.integers(1, 2048), max_size=30))
def test_what_is_taken_is_given_back(lengths: list[int]) -> None:
    routing = two_ways(3.0, 5.0)
    routes = [(routing.route(length), length) for length in lengths]
    assert all(route for route, _ in routes)
    for route, length in routes:
        routing.finish(route or (), length)
    assert routing.kv.free == [holding.kv_entries for holding in routing.kv.holdings]
    assert routing.kv.bottleneck() == 0.0
