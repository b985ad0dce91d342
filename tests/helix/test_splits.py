"""Which of several maximum flows is taken."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import helix
from helix.inputs.cluster import FIRST, SINK, SOURCE
from helix.inputs.requests import Arrival
from helix.plan.baselines import petals, swarm
from helix.plan.question import ask
from helix.plan.splits import split_flow
from helix.simulate.asked import dealt
from tests.helix.random_clusters import drawn

SPLITS = ("least-latency", "max-flow", "balanced")


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000))
def test_every_split_is_a_maximum_flow_that_is_conserved(seed: int):
    question = ask(drawn(seed, machines=(2, 8)))
    placement = petals(question.cluster, question.model, question.speed, seed)
    parts = question.cluster, question.model, question.profiles, placement, question.speed
    flows = {split: split_flow(split, *parts) for split in SPLITS}
    best = flows["max-flow"].value
    for flow in flows.values():
        assert flow.value == pytest.approx(best, rel=1e-6, abs=1e-6)
        for place in range(FIRST, FIRST + len(question.cluster.nodes)):
            ends = list(zip(placement.links, flow.links, strict=True))
            into = sum(f for link, f in ends if link.head == place)
            out = sum(f for link, f in ends if link.tail == place)
            assert into == pytest.approx(out, rel=1e-6, abs=1e-6)
        for f, capacity in zip(flow.links, flow.capacities, strict=True):
            assert -1e-6 <= f <= capacity * (1 + 1e-9)


def test_the_balanced_split_uses_equal_machines_and_links_equally():
    question = ask(helix.load("quality10-search"))
    alike = [i for i, node in enumerate(question.cluster.nodes) if node.kind == "T4"][:4]
    question = question._replace(cluster=question.cluster.part(alike))
    question = question._replace(
        model=type(question.model)(
            layers=8, layer_bytes=1, activation_bytes=question.model.activation_bytes
        )
    )
    placement = swarm(question.cluster, question.model, question.speed, 2)
    parts = question.cluster, question.model, question.profiles, placement, question.speed
    flow = split_flow("balanced", *parts)
    inner = [
        f
        for link, f in zip(placement.links, flow.links, strict=True)
        if link.tail != SOURCE and link.head != SINK
    ]
    assert inner == pytest.approx([flow.value / 4] * 4, rel=0.15)
    straight = [
        f
        for link, f in zip(placement.links, split_flow("max-flow", *parts).links, strict=True)
        if link.tail != SOURCE and link.head != SINK
    ]
    assert sum(f * f for f in inner) < sum(f * f for f in straight)


@given(shares=st.lists(st.floats(0.01, 1), min_size=1, max_size=5), count=st.integers(0, 200))
def test_arrivals_are_dealt_by_share_and_none_is_lost(shares: list[float], count: int):
    whole = [share / sum(shares) for share in shares]
    arrivals = [Arrival(float(i), 10, 10) for i in range(count)]
    hands = dealt(arrivals, whole)
    assert sorted((a for hand in hands for a in hand), key=lambda a: a.time_s) == arrivals
    for share, hand in zip(whole, hands, strict=True):
        assert abs(len(hand) - share * count) <= len(shares)
