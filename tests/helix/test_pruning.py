"""Pruning against the artifact's pruned clusters, and what the default adds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from helix.inputs.cluster import FIRST, SINK, SOURCE, Cluster
from helix.inputs.generate import CLUSTERS, even
from helix.plan.flow_graph import placement_flow
from helix.plan.placement import wired
from helix.plan.pruning import Pruning, pruned
from tests.helix.golden_inputs import SHIPPED, shipped_intervals, situation

COMPAT = Pruning(compat=True)
SCHEDULING = "geo.llama70b.ilp_paper(request_scheduling)"
PRUNED = {"geo.llama70b.ilp": 25, "het.llama70b.ilp": 58, SCHEDULING: 28}
DEAD = {SCHEDULING: {(14, 18)}}
"""Links that only the artifact's file has: an older one, where ways without a way in were left."""
HET_ORDER = [(0, 39), (32, 1), (35, 1), (43, 1), (2, 42), (10, 2), (3, 6), (7, 3), (41, 12)]
"""The first links of the artifact's simulator file of het42, by place."""


def pairs_of(cluster: Cluster) -> set[tuple[int, int]]:
    return {(link.tail, link.head) for link in cluster.links}


@pytest.mark.parametrize("shipped", PRUNED)
def test_pruned_clusters_leave_the_placements_the_artifacts_links(shipped: str) -> None:
    cluster, model, _, speed = situation(shipped)
    small = pruned(cluster, COMPAT)
    placement = wired(model.layers, shipped_intervals(shipped), small.links)
    dead = DEAD.get(shipped, set())
    assert dead <= pairs_of(small) - {(link.tail, link.head) for link in placement.links}
    links = len(placement.links) + len(dead)
    assert links == SHIPPED[shipped]["simulator_links"] == PRUNED[shipped]
    flow = placement_flow(small, model, placement, speed)
    assert flow.value == pytest.approx(SHIPPED[shipped]["reference_max_flow"], rel=1e-12)


def test_pruned_links_come_in_the_artifacts_order() -> None:
    cluster, model, _, _ = situation("het.llama70b.ilp")
    placement = wired(
        model.layers, shipped_intervals("het.llama70b.ilp"), pruned(cluster, COMPAT).links
    )
    assert [(k.tail, k.head) for k in placement.links[: len(HET_ORDER)]] == HET_ORDER


def test_ties_at_the_coordinator_and_at_machines_are_the_artifacts() -> None:
    pairs = pairs_of(pruned(CLUSTERS["het42"](), COMPAT))
    assert {head - FIRST for tail, head in pairs if tail == SOURCE} == set(range(30, 42))
    assert {tail - FIRST for tail, head in pairs if head == SINK} == set(range(30, 42))
    around_20 = {h - FIRST for t, h in pairs if t - FIRST == 20 and h != SINK}
    assert around_20 == {3, 4, 5, 6, 7, 8, 9, 37, 38, 39, 40, 41}


def test_equal_links_are_spread_evenly_by_default() -> None:
    pairs = pairs_of(pruned(CLUSTERS["het42"](), Pruning()))
    degrees = [sum(t == place and h != SINK for t, h in pairs) for place in range(FIRST, 44)]
    assert set(degrees) == {12}
    compat = pairs_of(pruned(CLUSTERS["het42"](), COMPAT))
    assert max(sum(t == place for t, _ in compat) for place in range(FIRST, 44)) > 40


def test_links_of_a_known_placement_can_be_kept() -> None:
    cluster, model, _, speed = situation("het.llama70b.swarm")
    swarm = wired(model.layers, shipped_intervals("het.llama70b.swarm"), cluster.links)
    small = pruned(cluster, Pruning(), keep=swarm.links)
    kept = wired(model.layers, swarm.intervals, small.links)
    assert kept.links == swarm.links
    assert placement_flow(small, model, kept, speed).value == pytest.approx(4892.242, abs=1e-3)


@given(st.integers(1, 6), st.integers(0, 4), st.booleans())
def test_every_machine_keeps_at_least_so_many(least: int, more: int, compat: bool) -> None:
    cluster = even({"A100": 4, "T4": 5})
    small = pruned(cluster, Pruning(min_keep=least, max_keep=least + more, compat=compat))
    pairs = pairs_of(small)
    assert pairs <= pairs_of(cluster)
    for place in range(FIRST, FIRST + 9):
        assert sum(t == place and h != SINK for t, h in pairs) >= least
        assert all((h, t) in pairs for t, h in pairs if t != SOURCE and h != SINK)
    assert sum(t == SOURCE for t, _ in pairs) == sum(h == SINK for _, h in pairs)
    assert sum(h == SINK for _, h in pairs) == min(least + more, 9)


def test_counts_that_keep_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="min_keep 0 and max_keep 12"):
        Pruning(min_keep=0)
