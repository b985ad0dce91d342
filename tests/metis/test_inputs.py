"""What users give: clusters, hostfiles, profiles, models; every mistake is one clear sentence."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.case import resolve, to_toml
from common.errors import InputError
from metis import experiments as named
from metis.inputs.cluster import Cluster, NodeGroup
from metis.inputs.experiment import ClusterSource, Experiment
from metis.inputs.hostfile import read_cluster
from metis.inputs.model import Model
from metis.inputs.profile import LayerProfile, ProfileKey, Profiles, read_profiles, write_profiles
from metis.inputs.synth import synthesize
from metis.plan.methods import make_plan
from metis.simulate.timeline import play
from tests.metis.pools import pool, problem_of

ENTRY = {"instance_type": "a100", "inter_bandwidth": 10, "intra_bandwidth": 46, "memory": 80}


def cluster_files(folder: Path, hostfile: str, entries: object) -> tuple[Path, Path]:
    hosts, cluster = folder / "hostfile", folder / "clusterfile.json"
    hosts.write_text(hostfile)
    cluster.write_text(json.dumps(entries))
    return hosts, cluster


def test_hostfile_and_clusterfile_become_a_cluster(tmp_path: Path) -> None:
    text = "# two nodes\n10.0.0.1 slots=16\n\n10.0.0.2 slots=4\n"
    files = cluster_files(tmp_path, text, {"10.0.0.1": ENTRY, "10.0.0.2": ENTRY})
    nodes = read_cluster(*files).machines()
    assert [(n.host, n.device, n.devices) for n in nodes] == [
        ("10.0.0.1", "A100", 16),
        ("10.0.0.2", "A100", 4),
    ]
    assert nodes[0].memory_mb == 80 * 1024


def test_a_byte_order_mark_and_trailing_comments_are_harmless(tmp_path: Path) -> None:
    hosts, cluster = cluster_files(
        tmp_path, "10.0.0.1 slots=2 # the old one\n", {"10.0.0.1": ENTRY}
    )
    for path in (hosts, cluster):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_cluster(hosts, cluster).total_devices() == 2


def test_a_host_in_two_lines_is_told_in_strict_and_usual_in_compat(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = cluster_files(tmp_path, "10.0.0.1 slots=4\n" * 2, {"10.0.0.1": ENTRY})
    assert read_cluster(*files, first_digit_slots=True).total_devices() == 8
    assert not caplog.records
    assert read_cluster(*files).total_devices() == 8
    assert "hostfile:2: host 10.0.0.1 stands in line 1 too" in caplog.text


@pytest.mark.parametrize("count", [1, 2])
def test_nodes_that_share_a_host_are_refused(count: int) -> None:
    other = NodeGroup(device="T4", devices=1, host="a" if count == 1 else "b")
    with pytest.raises(InputError, match="host 'a' stands for 2 nodes"):
        ClusterSource(nodes=(NodeGroup(device="A100", count=count, devices=2, host="a"), other))


def test_a_cluster_of_millions_of_devices_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="has 8,000,000 devices in all, expected at most 16,384"):
        Cluster(nodes=(NodeGroup(device="A100", count=10**6, devices=8),))


@pytest.mark.parametrize("method", ["optimal", "uniform"])
def test_a_global_batch_of_1e11_is_answered_at_once(method: str) -> None:
    asked = pool(NodeGroup(device="A100", devices=8), layers=10, batch=10**11, method=method)
    found = make_plan(asked, problem_of(asked), asked.search.method).plan
    assert found is not None
    assert found.batches >= 10**11 // (8 * 16)
    with pytest.raises(InputError, match=r"micro-batches on . stages, more than"):
        play(found)


def test_upstream_form_without_slots_is_read_too(tmp_path: Path) -> None:
    files = cluster_files(tmp_path, "10.0.0.1 8\n", {"10.0.0.1": ENTRY})
    assert read_cluster(*files).total_devices() == 8


def test_compat_reads_one_digit_of_the_slots(tmp_path: Path) -> None:
    files = cluster_files(tmp_path, "10.0.0.1 slots=16\n", {"10.0.0.1": ENTRY})
    assert read_cluster(*files, first_digit_slots=True).total_devices() == 1


@pytest.mark.parametrize(
    ("hostfile", "entries", "message"),
    [
        ("10.0.0.1 slots=x\n", {"10.0.0.1": ENTRY}, "hostfile:1: found '10.0.0.1 slots=x'"),
        ("10.0.0.9 slots=4\n", {"10.0.0.1": ENTRY}, "hostfile:1: host 10.0.0.9 has no entry"),
        ("\n", {"10.0.0.1": ENTRY}, "no machine in it"),
        ("10.0.0.1 slots=4\n", {}, "no machine in it"),
        ("10.0.0.1 slots=4\n", {"10.0.0.1": {}}, "host 10.0.0.1: Object missing required field"),
        ("10.0.0.1 slots=0\n", {"10.0.0.1": ENTRY}, r"hostfile:1: .*N at least 1"),
    ],
)
def test_a_bad_hostfile_is_one_sentence(
    tmp_path: Path, hostfile: str, entries: object, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_cluster(*cluster_files(tmp_path, hostfile, entries))


def test_ranks_follow_the_node_sequence_and_then_the_users_order() -> None:
    cluster = Cluster(
        nodes=(
            NodeGroup(device="T4", devices=1, host="a"),
            NodeGroup(device="A100", devices=2, host="b"),
            NodeGroup(device="T4", devices=4, host="c"),
        )
    )
    assert [node.host for node in cluster.in_sequence(("T4", "A100"))] == ["a", "c", "b"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device": "H900"}, "memory_gb is missing and 'H900' is not in the device table"),
        ({"count": 0}, "count is 0"),
        ({"memory_gb": -1.0}, "memory_gb is -1.0, expected a positive number"),
        ({"inter_bandwidth": 0.0}, "inter_bandwidth is 0.0"),
    ],
)
def test_a_bad_node_is_one_sentence(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        NodeGroup(**{"device": "A100", "devices": 4} | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 2}, "model.layers is 2, expected 3 or more"),
        ({"global_batch": 0}, "model.global_batch is 0"),
        ({"heads": 5}, "not a multiple of model.heads"),
    ],
)
def test_a_bad_model_is_one_sentence(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Model(**{"layers": 10} | change)


def synthetic(layers: int) -> Profiles:
    return synthesize(layers, max_tp=2, max_batch_size=4, time_scale={"A100": 1.0, "T4": 6.0})


@given(layers=st.integers(3, 20))
def test_written_profiles_read_back_equal(
    layers: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, profiles = tmp_path_factory.mktemp("profiles"), synthetic(layers)
    write_profiles(profiles, folder, model_name="GPT")
    again = read_profiles(folder, layers=layers)
    assert {key: again[key] for key in again} == {key: profiles[key] for key in profiles}


def test_the_first_profile_is_read_first(tmp_path: Path) -> None:
    write_profiles(synthetic(5), tmp_path, model_name="GPT")
    key = ProfileKey("T4", 2, 4)
    assert next(iter(read_profiles(tmp_path, layers=5, first=key))) == key


def test_a_profile_of_another_depth_names_file_field_found_expected(tmp_path: Path) -> None:
    write_profiles(synthetic(5), tmp_path, model_name="GPT")
    with pytest.raises(
        InputError, match=r"tp1_bs1.json: .*layer_compute_total_ms has 5 .*expected 6"
    ):
        read_profiles(tmp_path, layers=6)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": 1}', '{"model": {}}'])
def test_a_damaged_profile_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "DeviceType.A100_tp1_bs1.json").write_text(content)
    with pytest.raises(InputError, match=r"DeviceType\.A100_tp1_bs1\.json"):
        read_profiles(tmp_path, layers=5)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1.5,", "0,", "layer_compute_total_ms is all 0"),
        ('"optimizer_time_ms": 1.5', '"optimizer_time_ms": -1.5', "optimizer_time_ms is -1.5"),
        ('"model_name": "GPT"', '"model_name": "\udcff"', r"bs1\.json: "),
    ],
)
def test_a_profile_of_impossible_figures_is_one_sentence(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    entry = LayerProfile(
        layer_ms=(1.5,) * 5,
        memory_mb=(1.0,) * 5,
        parameters_bytes=(1.0,) * 5,
        forward_backward_ms=9.0,
        optimizer_ms=1.5,
        batch_generator_ms=0.5,
    )
    profiles = Profiles({ProfileKey("A100", 1, 1): entry}, "test")
    (path,) = write_profiles(profiles, tmp_path, model_name="GPT")
    text = path.read_text()
    assert read_profiles(tmp_path, layers=5)
    text = text.replace("1.5\n    ]", "0\n    ]") if new == "0," else text
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8", errors="surrogateescape")
    with pytest.raises(InputError, match=message):
        read_profiles(tmp_path, layers=5)


def rewritten(folder: Path, **changes: object) -> Profiles:
    """One profile, written and read with some figures changed."""
    found = synthetic(5)
    key = ProfileKey("A100", 1, 1)
    entry = msgspec.structs.replace(found[key], **changes)
    write_profiles(Profiles({key: entry}, "test"), folder, model_name="GPT")
    return read_profiles(folder, layers=5)


def test_a_profile_without_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="layer_memory_total_mb is all 0, expected what each"):
        rewritten(tmp_path, memory_mb=(0.0,) * 5)


def test_a_run_shorter_than_its_layers_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rewritten(tmp_path / "good")
    assert not caplog.records
    rewritten(tmp_path / "short", forward_backward_ms=1.0)
    assert "in 1 of 1 profiles forward_backward_time_ms is less than the layers" in caplog.text


def test_profiles_that_differ_in_case_alone_are_refused(tmp_path: Path) -> None:
    rewritten(tmp_path)
    (path,) = tmp_path.glob("*.json")
    (tmp_path / path.name.replace("A100", "a100")).write_text(path.read_text())
    with pytest.raises(InputError, match="beside it is of the same device, degree and batch"):
        read_profiles(tmp_path, layers=5)


@pytest.mark.parametrize(
    "name",
    ["A100-1-1.json", "DeviceType.A100_tp0_bs1.json", "DeviceType.A100_tp1_bs0.json"],
)
def test_an_unknown_profile_name_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match="name not understood, expected DeviceType"):
        read_profiles(tmp_path, layers=5)


def test_measured_memory_grows_with_the_batch_and_flat_does_not() -> None:
    args = {"max_tp": 1, "max_batch_size": 16, "time_scale": {"A100": 1.0}}
    grown = synthesize(6, **args, memory="measured")
    flat = synthesize(6, **args, memory="flat")
    sizes = [1, 2, 4, 8, 16]
    blocks = [grown[ProfileKey("A100", 1, bs)].memory_mb[1] for bs in sizes]
    assert blocks == sorted(set(blocks))
    assert blocks[-1] == pytest.approx(6259 + (6259 - 4838.5) / 2 * 12)
    assert len({flat[ProfileKey("A100", 1, bs)].memory_mb for bs in sizes}) == 1


@pytest.mark.parametrize("name", named())
def test_every_named_experiment_survives_its_own_toml(name: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(to_toml(named()[name]))
    assert resolve(str(path), {}, Experiment) == named()[name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("search.switches.phantoms=true", "search.switches has phantoms, expected some of"),
        ("search.group_variance=2", "search.group_variance is 2.0, expected 0 to 1"),
        ("search.first_profile=A100", "expected a form like A100_tp1_bs1"),
        ("search.time_limit_s=0", "search.time_limit_s is 0.0"),
        ("search.memory_fraction=1.5", "search.memory_fraction is 1.5"),
        ("training.steps=0", "training.steps is 0"),
        ("training.learning_rate=-1", "training.learning_rate is -1.0"),
        ("cluster.nodes.0.memory_gb=inf", "memory_gb is inf, expected a positive number"),
        ("profile.max_tp=0", "profile.max_tp is 0"),
        ("name=a/b", "it names files"),
        ("cluster.hostfile=hosts", "either .*cluster.nodes.* or both"),
    ],
)
def test_a_bad_experiment_is_one_sentence(change: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve("mixed-44", named(), Experiment, [change])


def test_profile_struct_knows_the_time_outside_layers() -> None:
    entry = LayerProfile(
        layer_ms=(1.0, 2.0, 3.0),
        memory_mb=(1.0,) * 3,
        parameters_bytes=(1.0,) * 3,
        forward_backward_ms=7.5,
        optimizer_ms=1.0,
        batch_generator_ms=0.0,
    )
    assert entry.sync_ms == 1.5
    assert msgspec.structs.replace(entry, forward_backward_ms=6.0).sync_ms == 0.0
