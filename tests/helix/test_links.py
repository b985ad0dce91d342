"""Clusters as arrays: the same links as by going through every pair, and no object for each."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from helix.inputs.cluster import FIRST, SINK, SOURCE, Cluster, Link, both_ways, place_name
from helix.inputs.cluster_source import COORDINATOR, ClusterSource, LinkSource, MachineGroup
from helix.inputs.links import ByEnds, Links
from helix.plan.placement import UNUSED, by_ends, carries, wired
from tests.helix.random_clusters import drawn

LAYERS = 6


def pair_by_pair(source: ClusterSource, cluster: Cluster) -> Links:
    """Return the links as the documentation has it: of each pair the last that is between it."""

    def names(place: int) -> set[str]:
        if place in (SOURCE, SINK):
            return {COORDINATOR, source.coordinator_region} - {""}
        return {place_name(place), cluster.nodes[place - FIRST].region}

    def meets(link: LinkSource, tail: int, head: int) -> bool:
        ends = link.between * 2 if len(link.between) == 1 else link.between
        ways = ((tail, head), (head, tail))
        return not ends or any(ends[0] in names(a) and ends[1] in names(b) for a, b in ways)

    places = range(FIRST, FIRST + len(cluster.nodes))
    outer = [(SOURCE, place) for place in places] + [(place, SINK) for place in places]
    pairs = list[tuple[int, int, float, float]]()
    for tail, head in [*outer, *combinations(places, 2)]:
        last = [x for x in (source.default_link, *source.links) if meets(x, tail, head)][-1]
        if last.gbit_per_s > 0:
            pairs.append((tail, head, last.gbit_per_s * 1e9 / 8, last.latency_ms / 1e3))
    return both_ways(pairs, len(cluster.nodes))


BY_NUMBER = ClusterSource(
    machines=(MachineGroup(kind="T4", count=3, region="a"), MachineGroup(kind="L4", count=2)),
    links=(
        LinkSource(between=("coordinator", "1"), gbit_per_s=3),
        LinkSource(between=("a",), gbit_per_s=0),
        LinkSource(between=("0", "4"), gbit_per_s=7),
        LinkSource(between=("", "a"), gbit_per_s=2),
    ),
)


def test_links_by_rules_are_those_of_every_pair():
    for source in (BY_NUMBER, *(drawn(seed, machines=(2, 12)).cluster for seed in range(5))):
        cluster = source.load()
        assert cluster.links == pair_by_pair(source, cluster)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6)), min_size=5, max_size=5))
def test_wires_are_the_links_that_carry_work_of_which_dead_ends_go(
    drawn_runs: list[tuple[int, int]],
):
    links = BY_NUMBER.load().links
    runs = [run if run[0] < run[1] else UNUSED for run in drawn_runs]
    for partial in (False, True):
        kept = [link for link in links if carries(LAYERS, runs, link, partial)]
        tails = {link.tail for link in kept}
        kept = [link for link in kept if link.head == SINK or link.head in tails]
        heads = {link.head for link in kept}
        kept = [link for link in kept if link.tail == SOURCE or link.tail in heads]
        assert wired(LAYERS, runs, links, partial).links == tuple(kept)


def test_links_are_a_sequence_and_known_by_their_ends():
    links = BY_NUMBER.load().links
    each = list(links)
    assert Links.of(each) == links
    assert hash(Links.of(each)) == hash(links)
    assert (links[0], links[-1], list(links[1:3])) == (each[0], each[-1], each[1:3])
    assert links != Links.of(each[1:])
    known = by_ends(links)
    assert isinstance(known, ByEnds)
    assert dict(known) == {(link.tail, link.head): link for link in each}
    assert (SOURCE, SINK) not in known
    assert (0, 99) not in known
    with pytest.raises(KeyError):
        known[SINK, SOURCE]


def test_the_first_link_that_cannot_be_is_named():
    nodes = BY_NUMBER.load().nodes
    good = Link(SOURCE, 2, 1.0, 0.0)
    for bad, said in (
        (Link(2, 99, 1.0, 0.0), "link 0 to 97: there is no such place among 5 machines"),
        (Link(3, 3, 1.0, 0.0), "link 1 to 1: given twice, or not between two different places"),
        (good, "link source to 0: given twice"),
        (Link(2, 3, 0.0, 0.0), r"link 0 to 1: bandwidth is 0\.0, expected above 0"),
        (Link(2, 3, 1.0, float("nan")), "link 0 to 1: latency is nan, expected 0 or more"),
    ):
        with pytest.raises(InputError, match=said):
            Cluster(nodes=nodes, links=Links.of([good, bad, Link(9, 9, 0.0, -1.0)]))


def test_more_machines_than_a_plan_can_hold_are_refused():
    group = MachineGroup(kind="T4", count=2_001)
    with pytest.raises(InputError, match="4,002 machines, expected 4,000 at most"):
        ClusterSource(machines=(group, group))
