"""The original's files: read, written byte for byte, and complained about in one sentence."""

import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from helix.inputs.cluster import FIRST, SINK, SOURCE, Cluster, Link, Node, both_ways
from helix.inputs.generate import CLUSTERS
from helix.inputs.links import Links
from helix.inputs.machine import known_kinds
from helix.inputs.original_files import (
    MachineProfiles,
    read_cluster,
    read_machine_profiles,
    read_solution,
    write_cluster,
    write_machine_profiles,
    write_solution,
)
from helix.inputs.original_ini import Value, quantity, short_quantity
from helix.inputs.original_prototype import prototype_members, read_prototype, write_prototype
from helix.inputs.original_simulator import read_simulator_cluster, write_simulator_cluster
from helix.plan.placement import by_ends, wired
from helix.plan.pruning import Pruning, pruned
from tests.helix.golden_inputs import SHIPPED, shipped_intervals, situation

FOLDER = Path(__file__).parents[1] / "golden/helix/original"
CLUSTER = FOLDER / "geo_a100.ini"
SIMULATOR = FOLDER / "geo_llama30b_separate_a100_simulator_cluster.ini"
SOLUTION = FOLDER / "geo_llama70b_separate_t4_sol.ini"
PROTOTYPE = FOLDER / "single_llama70b_separate_a100_real_sys_config.txt"
PROFILES = FOLDER / "machine_profiles.ini"
SEPARATE = "geo.llama30b.separate.a100"


def without_regions(cluster: Cluster) -> Cluster:
    nodes = tuple(msgspec.structs.replace(node, region="") for node in cluster.nodes)
    return msgspec.structs.replace(cluster, nodes=nodes)


def test_machine_profiles_are_the_shipped_kinds() -> None:
    profiles = read_machine_profiles(PROFILES)
    assert profiles.kinds == known_kinds()
    assert (profiles.nic_in, profiles.nic_out) == (10e9, 10e9)


def test_a_generated_region_is_written_as_the_artifacts_file() -> None:
    part = CLUSTERS["geo24"]().of_kind("A100")
    assert write_cluster(part, "partitioned") == CLUSTER.read_text()
    assert read_cluster(CLUSTER) == without_regions(part)


def test_equal_links_are_written_whole_as_the_other_generator_does() -> None:
    text = write_cluster(CLUSTERS["single24"](), "fake")
    assert text.startswith("[NodeNames]\ntotal_compute_nodes=24\n\n[SourceNode]\n")
    assert "[Link-22-23]\nbandwidth=1000 * mbps\nlatency=1 * MilliSec\n" in text
    slow = Cluster(
        nodes=(Node.of("T4"),), links=both_ways([(SOURCE, 2, 9.87e6, 0.01), (2, SINK, 5e5, 0)], 1)
    )
    assert "bandwidth=9.9 * mbps\nlatency=10 * MilliSec" in write_cluster(slow, "fake")
    assert "bandwidth=0.500 * mbps\nlatency=0 * MilliSec" in write_cluster(slow, "fake")


@pytest.mark.parametrize("name", CLUSTERS)
@pytest.mark.parametrize("printing", ["exact", "partitioned"])
def test_clusters_are_read_back_as_they_were(name: str, printing: str, tmp_path: Path) -> None:
    cluster = CLUSTERS[name]()
    path = tmp_path / "cluster.ini"
    path.write_text(write_cluster(cluster, printing))  # type: ignore[arg-type]
    assert read_cluster(path) == without_regions(cluster)


def test_a_pruned_cluster_keeps_the_order_of_its_links(tmp_path: Path) -> None:
    cluster = pruned(CLUSTERS["geo24"](), Pruning(compat=True))
    path = tmp_path / "pruned.ini"
    path.write_text(write_cluster(cluster))
    assert read_cluster(path).links == cluster.links
    listed = "[SourceNode]\nconnected_nodes=[0, 3, 5, 7, 8, 9, 11, 14, 17, 18, 19, 21]"
    assert listed in path.read_text()


figures = st.tuples(
    st.floats(1e-3, 1e13), st.one_of(st.just(0.0), st.floats(1e-9, 1e3)), st.booleans()
)


@given(st.lists(figures, min_size=10, max_size=10))
def test_any_cluster_is_read_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[float, float, bool]]
) -> None:
    ends = [(SOURCE, p) for p in (2, 3, 4)] + [(p, SINK) for p in (2, 3, 4)]
    ends += [(2, 3), (2, 4), (3, 4)]
    links = [(*pair, b, s) for pair, (b, s, there) in zip(ends, drawn, strict=False) if there]
    nodes = tuple(Node.of(kind) for kind in ("T4", "L4x2", "A100"))
    cluster = Cluster(nodes=nodes, links=both_ways(links, 3))
    path = tmp_path_factory.mktemp("any") / "cluster.ini"
    path.write_text(write_cluster(cluster))
    for ours, theirs in zip(read_cluster(path).links, cluster.links, strict=True):
        assert (ours.tail, ours.head) == (theirs.tail, theirs.head)
        assert ours.bandwidth == pytest.approx(theirs.bandwidth, rel=1e-15)
        assert ours.latency == pytest.approx(theirs.latency, rel=1e-15)


def test_unlike_directions_do_not_fit_the_original() -> None:
    links = (Link(2, 3, 1e9, 0.001), Link(3, 2, 2e9, 0.001))
    cluster = Cluster(nodes=(Node.of("T4"), Node.of("T4")), links=Links.of(links))
    with pytest.raises(InputError, match="link 0 to 1: the original's file has one figure"):
        write_cluster(cluster)


def test_profiles_of_other_machines_are_read_back(tmp_path: Path) -> None:
    kind = msgspec.structs.replace(known_kinds()["L4"], vram=80e9, disk=2.5e9)
    profiles = MachineProfiles(kinds={"H100": kind}, nic_in=12.5e9, nic_out=25e9)
    path = tmp_path / "machine_profiles.ini"
    path.write_text(write_machine_profiles(profiles))
    assert read_machine_profiles(path) == profiles
    assert "vram_size=80 * GB" in path.read_text()


def test_the_artifacts_solution_is_read_and_written() -> None:
    runs = read_solution(SOLUTION)
    assert runs[:3] == ((62, 68), (0, 7), (35, 42))
    assert write_solution(runs) == SOLUTION.read_text()


@pytest.mark.parametrize("shipped", SHIPPED)
def test_solutions_are_read_back(shipped: str, tmp_path: Path) -> None:
    path = tmp_path / "sol.ini"
    runs = (*shipped_intervals(shipped), (0, 0))
    path.write_text(write_solution(runs))
    assert read_solution(path) == runs


def test_the_artifacts_simulator_file_is_written_byte_for_byte() -> None:
    cluster, model, profiles, _ = situation(SEPARATE)
    placement = wired(model.layers, shipped_intervals(SEPARATE), cluster.links)
    entries = [profiles["A100"].limits[14].kv_entries] * 4
    read = read_simulator_cluster(SIMULATOR)
    known = by_ends(placement.links)
    links = [known[link.tail, link.head] for link in read.cluster.links]  # its own order
    text = write_simulator_cluster(cluster, links, entries, compat=True)
    assert text == SIMULATOR.read_text()
    rewritten = [link.latency * 1000 * 0.001 for link in links]
    assert [link.latency for link in read.cluster.links] == rewritten
    assert len(links) == len(placement.links)
    assert read.cluster.nodes == without_regions(cluster).nodes
    assert read.kv_entries == (725040,) * 4


@pytest.mark.parametrize("shipped", SHIPPED)
def test_simulator_files_are_read_back(shipped: str, tmp_path: Path) -> None:
    cluster, model, _, _ = situation(shipped)
    placement = wired(model.layers, shipped_intervals(shipped), cluster.links, partial=True)
    entries = tuple(range(len(cluster.nodes)))
    path = tmp_path / "simulator_cluster.ini"
    path.write_text(write_simulator_cluster(cluster, placement.links, entries))
    read = read_simulator_cluster(path)
    used = msgspec.structs.replace(without_regions(cluster), links=Links.of(placement.links))
    assert (read.cluster, read.kv_entries) == (used, entries)


def test_the_prototypes_file_is_written_byte_for_byte(tmp_path: Path) -> None:
    cluster = CLUSTERS["single24"]().of_kind("A100")
    runs = [(0, 20), (20, 40), (40, 60), (60, 80)]
    placement = wired(80, runs, cluster.links)
    ips = {"A100": [f"10.128.0.{last}" for last in (14, 41, 42, 43)]}
    members = prototype_members(cluster, runs, placement.links, "10.128.0.31", ips)
    assert write_prototype(members) == PROTOTYPE.read_text()
    assert read_prototype(PROTOTYPE) == members


def test_an_unused_machine_keeps_its_address_and_is_left_out() -> None:
    cluster = CLUSTERS["single24"]().of_kind("A100")
    runs = [(0, 40), (0, 0), (40, 80), (0, 0)]
    placement = wired(80, runs, cluster.links)
    members = prototype_members(cluster, runs, placement.links, "h", {"A100": ["a", "b", "c", "d"]})
    assert [(m.machine, m.address) for m in members] == [(0, "h"), (1, "a"), (3, "c")]
    with pytest.raises(InputError, match="addresses: 1 for A100, expected 4"):
        prototype_members(cluster, runs, placement.links, "h", {"A100": ["a"]})


@pytest.mark.parametrize(
    ("text", "number"),
    [("10 * gbps", 1e10), ("12.5*mbps", 12.5e6), ("-1", -1.0), ("2e3 * KB", 2e6), (".5", 0.5)],
)
def test_a_number_is_a_number_with_at_most_one_unit(text: str, number: float) -> None:
    assert Value(text, "x", "f:1").number() == number


@pytest.mark.parametrize(
    "text",
    ["", "1 * 2", "1 * gbps * 2", "gbps", "__import__('os')", "1 + 1", "nan", "1 * Gbps", "0x10"],
)
def test_anything_else_is_refused_and_never_evaluated(text: str) -> None:
    with pytest.raises(InputError, match=r"^f:1: x is .*, expected a number"):
        Value(text, "x", "f:1").number()


@given(st.floats(1e-12, 1e18), st.sampled_from(["mbps", "MilliSec", "GB"]))
def test_quantities_are_read_back_to_the_last_bit_but_one(value: float, unit: str) -> None:
    for text in (quantity(value, unit), short_quantity(value, unit)):
        assert Value(text, "x", "f:1").number() == pytest.approx(value, rel=2.3e-16)


BROKEN: list[tuple[Path, Callable[[Path], object], str, str, str]] = [
    (CLUSTER, read_cluster, "type=A100", "type=H900", "11: type is 'H900', expected one of"),
    (
        CLUSTER,
        read_cluster,
        "total_compute_nodes=4",
        "total_compute_nodes=5",
        "ComputeNode-4.* is",
    ),
    (CLUSTER, read_cluster, "nodes=4", "nodes=many", "2: total_compute_nodes is 'many'"),
    (CLUSTER, read_cluster, "[0, 1, 2, 3]", "[0, 1, 2]", r"\[SourceNode\] and 3: there is a sect"),
    (CLUSTER, read_cluster, "[0, 1, 2, 3]", "[0, 1, 2, 3, 4]", "and 4: there is a list but no sec"),
    (CLUSTER, read_cluster, "[0, 1, 2, 3]", "[0, 1, 2, exit()]", "5: connected_nodes is"),
    (CLUSTER, read_cluster, "[Link-2-3]", "[Link-2-9]", "does not join two of source, sink and 0"),
    (CLUSTER, read_cluster, "[Link-2-3]", "[Link-1-3]", r"section \[Link-1-3\] is given twice"),
    (CLUSTER, read_cluster, "14.2 * mbps", "-14.2 * mbps", "bandwidth is -14200000.0, expected ab"),
    (CLUSTER, read_cluster, "14.2 * mbps", "fast", "27: bandwidth is 'fast', expected a number"),
    (CLUSTER, read_cluster, "latency=55 * MilliSec\n", "", r"source-0\] has no latency"),
    (CLUSTER, read_cluster, "bandwidth=14.2 * mbps", "broad", "27: 'broad' is neither a section"),
    (SOLUTION, read_solution, "[62, 63,", "[62, 64,", "expected layers in a row"),
    (SOLUTION, read_solution, "compute_node_2=", "compute_node_99=", "the machines compute_node_2"),
    (SOLUTION, read_solution, "offset=2", "", r"section \[Settings\] has no offset"),
    (SIMULATOR, read_simulator_cluster, '"A100"', '"B100"', "expected one of the listed types"),
    (SIMULATOR, read_simulator_cluster, "out=sink", "out=drain", "out is 'drain', expected source"),
    (SIMULATOR, read_simulator_cluster, "=725040", "=-1", "kv_cache_capacity is '-1', expected a"),
    (SIMULATOR, read_simulator_cluster, "out=sink", "out=compute_node_2", "not between two differ"),
    (SIMULATOR, read_simulator_cluster, "vram_size=40000.0", "vram_size=0", "vram is 0.0, expecte"),
    (PROFILES, read_machine_profiles, "16 * GB", "16 * TB", "vram_size is '16 \\* TB', expected a"),
    (PROFILES, read_machine_profiles, "[SinkNode]", "[Drain]", r"\[Drain\]: machine: vram is -1.0"),
    (
        PROFILES,
        read_machine_profiles,
        "outbound_nic_speed = 10",
        "outbound_nic_speed = -1",
        "a spe",
    ),
    (PROTOTYPE, read_prototype, "machine_id: 1", "machine_id: 2", "every machine_id is given once"),
    (PROTOTYPE, read_prototype, "out_nodes: 2", "out_nodes: 3", "from machine 1 to 2 is named at"),
    (PROTOTYPE, read_prototype, "out_nodes: 2\n", "", "8: this block has no out_nodes"),
    (PROTOTYPE, read_prototype, "end_layer: 20", "end_layer: 0", "above start_layer 0"),
    (PROTOTYPE, read_prototype, "in_nodes: 1", "in_nodes: one", "machine numbers apart by blanks"),
    (PROTOTYPE, read_prototype, "in_nodes: 1", "input: 1", "17: 'input: 1', expected one each of"),
]


@pytest.mark.parametrize(("source", "read", "old", "new", "says"), BROKEN)
def test_a_malformed_file_is_one_clear_sentence(
    source: Path, read: Callable[[Path], object], old: str, new: str, says: str, tmp_path: Path
) -> None:
    path = tmp_path / source.name
    assert old in source.read_text()
    path.write_text(source.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=says) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [read_cluster, read_solution, read_prototype])
def test_a_file_that_is_no_text_is_one_clear_sentence(
    read: Callable[[Path], object], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="cannot be read as text"):
        read(tmp_path / "missing.ini")
    path = tmp_path / "bytes.ini"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=re.escape(f"{path}: cannot be read as text")):
        read(path)


@given(st.text(max_size=200))
def test_no_text_breaks_the_readers(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("any") / "file.ini"
    path.write_text(text, encoding="utf-8", errors="ignore")
    for read in (read_cluster, read_solution, read_simulator_cluster, read_prototype):
        with pytest.raises(InputError):
            read(path)


def test_places_are_counted_from_two() -> None:
    assert FIRST == 2
    assert read_cluster(CLUSTER).links[0].head == FIRST
