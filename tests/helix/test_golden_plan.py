"""Throughput model, bounds, baselines and flows against the artifact's own figures."""

import csv
from pathlib import Path

import pytest

from helix.inputs.cluster import FIRST, Cluster
from helix.inputs.generate import CLUSTERS
from helix.inputs.model import known_models
from helix.inputs.profile import shipped_profiles
from helix.plan.baselines import petals, swarm
from helix.plan.bounds import capped_compute_bound, chain_value, compute_sum_bound
from helix.plan.flow_graph import placement_flow
from helix.plan.placement import wired
from helix.plan.throughput import throughput
from tests.helix.golden_inputs import GOLDEN, SHIPPED, shipped_intervals, situation

FOLDER = Path(__file__).parents[1] / "golden/helix"
STAGES = {"llama30b": 10, "llama70b": 20}


@pytest.mark.parametrize("name", GOLDEN["throughput_tables"])
def test_typical_throughputs_are_the_artifacts_to_the_last_bit(name: str) -> None:
    golden = GOLDEN["throughput_tables"][name]
    model, profiles = known_models()[name.split("/")[0]], shipped_profiles(name.split("/")[0])
    ours = throughput(model, profiles, dict(reversed(golden["machines"].items())))
    assert ours.typical_layers == golden["typical_layers"]
    assert ours.speeds == golden["normalized_perf"]
    for kind, theirs in golden["types"].items():
        assert list(ours.rates(kind)) == theirs["typical_tokens_per_s"]
        table = ours.table[kind]
        assert [t.prompt_requests for t in table] == theirs["prompt_typical_requests"]
        assert [t.decode_tokens for t in table] == theirs["decode_typical_tokens"]
    rates = [ours.rates(kind) for kind, n in golden["machines"].items() for _ in range(n)]
    bound = compute_sum_bound(rates, model.layers)
    assert bound == pytest.approx(golden["compute_sum_upper_bound"], rel=1e-12)


@pytest.mark.parametrize("shipped", SHIPPED)
def test_bounds_of_every_cluster(shipped: str) -> None:
    cluster, model, _, speed = situation(shipped)
    golden = GOLDEN["bounds"][SHIPPED[shipped]["cluster"]]
    rates = [speed.rates(node.kind) for node in cluster.nodes]
    capped = capped_compute_bound(rates, model.layers)
    assert capped == pytest.approx(golden["capped_upper_bound"], rel=1e-10)
    chain = chain_value(rates, model.layers)
    assert chain == pytest.approx(golden["single_chain_no_links"], rel=1e-12)
    assert chain <= capped * (1 + 1e-12)


@pytest.mark.parametrize("shipped", [s for s in SHIPPED if s.split(".")[2] in ("petals", "swarm")])
def test_petals_and_swarm_are_the_artifacts(shipped: str) -> None:
    cluster, model, _, speed = situation(shipped)
    if shipped.endswith("petals"):
        placement = petals(cluster, model, speed)
    else:
        placement = swarm(cluster, model, speed, STAGES[shipped.split(".")[1]])
    assert placement.intervals == shipped_intervals(shipped)
    assert len(placement.links) == SHIPPED[shipped]["simulator_links"]
    flow = placement_flow(cluster, model, placement, speed)
    assert flow.value == pytest.approx(SHIPPED[shipped]["reference_max_flow"], rel=1e-12)


@pytest.mark.parametrize(
    "shipped", [s for s in SHIPPED if s.split(".")[2] not in ("petals", "swarm")]
)
def test_maximum_flows_of_the_other_shipped_placements(shipped: str) -> None:
    cluster, model, _, speed = situation(shipped)
    placement = wired(model.layers, shipped_intervals(shipped), cluster.links)
    flow = placement_flow(cluster, model, placement, speed)
    assert flow.value == pytest.approx(SHIPPED[shipped]["reference_max_flow"], rel=1e-12)


@pytest.mark.parametrize("name", CLUSTERS)
def test_generated_clusters_have_the_artifacts_machines(name: str) -> None:
    with FOLDER.joinpath("cluster_nodes.csv").open() as file:
        kinds = [row["type"] for row in csv.DictReader(file) if row["cluster"] == name]
    assert [node.kind for node in CLUSTERS[name]().nodes] == kinds


def test_generated_regions_have_the_artifacts_links() -> None:
    cluster = CLUSTERS["geo24"]()
    ours = {
        (link.tail, link.head): (link.bandwidth / 1e6, link.latency * 1e3) for link in cluster.links
    }
    with FOLDER.joinpath("geo24_links.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        ends = (_place(row["from"]), _place(row["to"]))
        figures = (float(row["bandwidth_MBps"]), float(row["latency_ms"]))
        assert ours[ends] == pytest.approx(figures, rel=1e-12)
    assert len(rows) == 24 * 23 // 2 + 2 * 24
    assert len(cluster.links) == 24 * 23 + 2 * 24


def _place(name: str) -> int:
    return {"source": 0, "sink": 1}.get(name, int(name) + FIRST if name.isdigit() else -1)


def test_one_kind_of_a_cluster_keeps_its_links_values() -> None:
    whole: Cluster = CLUSTERS["geo24"]()
    part = whole.of_kind("A100")
    assert [node.kind for node in part.nodes] == ["A100"] * 4
    assert len(part.links) == 4 * 3 + 2 * 4
    assert part.links[0] == next(link for link in whole.links if link.tail == 0)
