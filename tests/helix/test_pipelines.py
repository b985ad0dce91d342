"""Separate pipelines and the homogeneous placement, made and published."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from helix.inputs.cluster import FIRST, SINK, SOURCE, Cluster
from helix.inputs.generate import CLUSTERS, even
from helix.inputs.model import known_models
from helix.inputs.profile import shipped_profiles
from helix.plan.flow_graph import placement_flow
from helix.plan.homogeneous import homogeneous
from helix.plan.pipelines import Pipeline, separate_pipelines
from helix.plan.pipelines_published import handmade, published_pipelines
from helix.plan.placement import UNUSED, wired
from helix.plan.throughput import throughput
from tests.helix.golden_inputs import shipped_intervals, situation

SOLUTIONS = {
    "single.llama30b.separate": ("single24", 3),
    "geo.llama30b.separate": ("geo24", 3),
    "single.llama70b.separate": ("single24", 3),
    "geo.llama70b.separate": ("geo24", 3),
    "het.llama70b.separate": ("het42", 4),
    "het.llama70b.separate_plus": ("het42", 5),
}
LLAMA30B, LLAMA70B = known_models()["llama1_30b"], known_models()["llama2_70b"]


def in_a_row(intervals: tuple[tuple[int, int], ...], layers: int) -> bool:
    runs = sorted(intervals)
    joined = all(before[1] == after[0] for before, after in pairwise(runs))
    return joined and runs[0][0] == 0 and runs[-1][1] == layers


def test_equal_splits_are_the_papers_for_llama_30b() -> None:
    profiles = shipped_profiles("llama1_30b")
    pipelines = {
        one.name: one for one in separate_pipelines(CLUSTERS["single24"](), LLAMA30B, profiles)
    }
    for kind in ("A100", "L4", "T4"):
        shipped = shipped_intervals(f"single.llama30b.separate.{kind.lower()}")
        assert pipelines[kind].intervals == shipped
        assert set(pipelines[kind].kinds) == {kind}


@pytest.mark.parametrize(
    ("kind", "layers", "entries"),
    [("A100", 15, 725040), ("L4", 7, 417088), ("L4", 8, 376704), ("T4", 5, 268240)],
)
def test_profiles_have_the_kv_capacities_of_the_shipped_30b_files(
    kind: str, layers: int, entries: int
) -> None:
    assert shipped_profiles("llama1_30b")[kind].limits[layers - 1].kv_entries == entries


@given(
    st.fixed_dictionaries(
        {"A100": st.integers(1, 9), "L4": st.integers(1, 90), "T4": st.integers(1, 30)}
    )
)
def test_every_pipeline_holds_the_model_evenly(counts: dict[str, int]) -> None:
    cluster, profiles = even(counts), shipped_profiles("llama1_30b")
    able = [kind for kind in counts if profiles[kind].max_layers * counts[kind] >= LLAMA30B.layers]
    if not able:
        with pytest.raises(InputError, match="no kind's machines hold 60 layers"):
            separate_pipelines(cluster, LLAMA30B, profiles)
        return
    pipelines = separate_pipelines(cluster, LLAMA30B, profiles)
    assert {one.name for one in pipelines} == set(able)
    for one in pipelines:
        widths = {end - start for start, end in one.intervals}
        assert in_a_row(one.intervals, LLAMA30B.layers)
        assert max(widths) - min(widths) <= 1
        assert max(widths) <= profiles[one.name].max_layers
        assert len(one.machines) == min(counts[one.name], LLAMA30B.layers)


def flow_of(one: Pipeline, cluster: Cluster, layers: int) -> float:
    part = one.part(cluster)
    speed = throughput(LLAMA30B, shipped_profiles("llama1_30b"), part.kind_counts())
    return placement_flow(part, LLAMA30B, wired(layers, one.intervals, part.links), speed).value


def test_pipelines_carry_the_flow_of_their_slowest_machine() -> None:
    cluster = CLUSTERS["single24"]()
    pipelines = separate_pipelines(cluster, LLAMA30B, shipped_profiles("llama1_30b"))
    flows = {one.name: flow_of(one, cluster, 60) for one in pipelines}
    golden = {"A100": 1044.533, "L4": 214.981, "T4": 397.685}
    assert flows == {kind: pytest.approx(golden[kind], abs=1e-3) for kind in golden}


@pytest.mark.parametrize("solution", SOLUTIONS)
def test_published_pipelines_hold_the_model_on_machines_of_their_own(solution: str) -> None:
    name, count = SOLUTIONS[solution]
    cluster = CLUSTERS[name]()
    pipelines = published_pipelines(solution, cluster)
    assert len(pipelines) == count
    model = LLAMA30B if "30b" in solution else LLAMA70B
    machines = [index for one in pipelines for index in one.machines]
    assert len(set(machines)) == len(machines)
    for one in pipelines:
        assert in_a_row(one.intervals, model.layers)
        assert len(one.kinds) == len(one.machines) == len(one.intervals)
        assert (one.kv_entries is None) == (model is LLAMA30B)
        assert one.kv_entries is None or len(one.kv_entries) == len(one.machines)
        part = one.part(cluster)
        assert [node.kind for node in part.nodes] == list(one.kinds)
        placement = wired(model.layers, one.intervals, part.links)
        assert len(placement.links) == len(one.machines) + 1


@pytest.mark.parametrize("where", ["single", "geo"])
def test_published_30b_pipelines_are_the_shipped_placements(where: str) -> None:
    solution = f"{where}.llama30b.separate"
    for one in published_pipelines(solution, CLUSTERS[SOLUTIONS[solution][0]]()):
        assert one.intervals == shipped_intervals(f"{solution}.{one.name}")


def test_kinds_are_the_machines_own_but_for_two_that_count_as_v100() -> None:
    for solution, (name, _) in SOLUTIONS.items():
        cluster = CLUSTERS[name]()
        for one in published_pipelines(solution, cluster):
            own = tuple(cluster.nodes[index].kind for index in one.machines)
            changed = [
                i for i, pair in enumerate(zip(own, one.kinds, strict=True)) if len({*pair}) > 1
            ]
            assert changed == ([6, 7] if one.name == "v100_t4" else [])


def test_published_kv_capacities_and_the_mended_one() -> None:
    cluster = CLUSTERS["single24"]()
    published = published_pipelines("single.llama70b.separate", cluster)
    assert [one.kv_entries and one.kv_entries[0] for one in published] == [491900, 593600, 216960]
    assert published[2].kv_entries == (216960,) * 4 + (44800,) * 8
    mended = published_pipelines("single.llama70b.separate", cluster, "geo24")
    assert [one.kv_entries and one.kv_entries[0] for one in mended] == [35200, 786080, 794976]
    geo = published_pipelines("geo.llama70b.separate", CLUSTERS["geo24"]())
    six = [i for i, entries in enumerate(geo[2].kv_entries or ()) if entries == 794976]
    assert six == [0, 4, 6, 11]


def test_unknown_names_are_refused_in_a_sentence() -> None:
    cluster = CLUSTERS["single24"]()
    with pytest.raises(InputError, match=r"'nothing' is none of single.llama30b.separate"):
        published_pipelines("nothing", cluster)
    with pytest.raises(InputError, match="calibration: 'other' is none of single24, geo24, het42"):
        published_pipelines("single.llama70b.separate", cluster, "other")
    with pytest.raises(InputError, match="no KV capacity of T4 with 6 layers"):
        published_pipelines("single.llama70b.separate", cluster, "het42")
    assert len(handmade().pipelines) == 17


def test_homogeneous_fills_pipelines_from_the_fastest_kind_on() -> None:
    cluster, model, _, speed = situation("single.llama30b.swarm")
    placement = homogeneous(cluster, model, speed)
    by_kind = {kind: list[tuple[int, int]]() for kind in cluster.kind_counts()}
    for node, run in zip(cluster.nodes, placement.intervals, strict=True):
        by_kind[node.kind].append(run)
    # 18, 11 and 7 layers at most; the T4's full layer rate is above the L4's
    assert sorted(by_kind["A100"]) == [(0, 18), (18, 36), (36, 54), (54, 60)]
    assert sorted(by_kind["T4"])[:4] == [(0, 7), (0, 7), (7, 14), (7, 14)]
    assert sorted(by_kind["L4"]) == [UNUSED] * 4 + [(21, 32), (32, 43), (43, 54), (54, 60)]
    assert sum(link.tail == SOURCE for link in placement.links) == 3


counts = st.fixed_dictionaries({"A100": st.integers(1, 5), "L4": st.integers(1, 9)})


@given(counts, st.integers(0, 5))
def test_homogeneous_pipelines_are_whole_and_apart(machines: dict[str, int], seed: int) -> None:
    cluster = even(machines)
    speed = throughput(LLAMA30B, shipped_profiles("llama1_30b"), machines)
    if 18 * machines["A100"] + 11 * machines["L4"] < 60:
        with pytest.raises(InputError, match="60 layers do not fit all machines together"):
            homogeneous(cluster, LLAMA30B, speed, seed)
        return
    placement = homogeneous(cluster, LLAMA30B, speed, seed)
    following = {link.tail: link.head for link in placement.links if link.tail != SOURCE}
    used = [i + FIRST for i, run in enumerate(placement.intervals) if run != UNUSED]
    assert sorted(following) == used  # each passes its work to one place only
    for first in (link.head for link in placement.links if link.tail == SOURCE):
        place, at = first, 0
        while place != SINK:
            start, end = placement.intervals[place - FIRST]
            assert start == at
            place, at = following[place], end
        assert at == 60
    assert placement == homogeneous(cluster, LLAMA30B, speed, seed)
    assert placement_flow(cluster, LLAMA30B, placement, speed).value > 0
