"""A plan is made anew when a file that it was made from has changed behind the same path."""

import json
from pathlib import Path

import msgspec
import pytest

import metis
from metis.inputs.experiment import ClusterSource, Experiment, ProfileSource, SearchSettings
from metis.inputs.model import Model
from metis.inputs.profile import write_profiles
from metis.inputs.synth import synthesize
from metis.plan.answer import question
from metis.plan.lookups import ProfileTables

CONFIG = {"model_type": "gpt2", "n_layer": 3, "n_embd": 64, "n_head": 4, "vocab_size": 99}


def by_files(folder: Path) -> Experiment:
    """A question whose cluster, model and profiles all stand in files."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "hostfile").write_text("10.0.0.1 slots=2\n")
    entry = {"instance_type": "A100", "inter_bandwidth": 10, "intra_bandwidth": 46, "memory": 80}
    (folder / "clusterfile.json").write_text(json.dumps({"10.0.0.1": entry}))
    profiles = synthesize(5, max_tp=1, max_batch_size=2, time_scale={"A100": 1.0})
    write_profiles(profiles, folder / "profiles", model_name="GPT")
    return Experiment(
        name="files",
        model=Model(config=str(folder), global_batch=4, sequence_length=64),
        cluster=ClusterSource(
            hostfile=str(folder / "hostfile"), clusterfile=str(folder / "clusterfile.json")
        ),
        profile=ProfileSource(source=str(folder / "profiles")),
        search=SearchSettings(time_limit_s=10.0),
    )


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("config.json", "99", "101"),
        ("hostfile", "slots=2", "slots=1"),
        ("clusterfile.json", "80", "40"),
        ("profiles/DeviceType.A100_tp1_bs2.json", "58.8", "59.8"),
    ],
)
def test_another_content_behind_the_same_path_is_another_question(
    tmp_path: Path, file: str, old: str, new: str
) -> None:
    asked = by_files(tmp_path / "in")
    before, path = question(asked, 0), tmp_path / "in" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert question(asked, 0) != before


def test_the_same_content_at_another_path_is_the_same_question(tmp_path: Path) -> None:
    here, there = by_files(tmp_path / "here"), by_files(tmp_path / "there")
    assert question(here, 0) == question(there, 0)
    longer = msgspec.structs.replace(here.model, sequence_length=128)
    assert question(msgspec.structs.replace(here, model=longer), 0) != question(here, 0)


def test_a_plan_is_made_anew_when_a_profile_has_changed(tmp_path: Path) -> None:
    asked = by_files(tmp_path / "in")
    first = metis.plan(asked)
    assert first.question == question(asked, 0)
    for path in (tmp_path / "in/profiles").glob("*.json"):
        content = json.loads(path.read_text())
        time = content["execution_time"]
        time["layer_compute_total_ms"] = [2 * ms for ms in time["layer_compute_total_ms"]]
        time["forward_backward_time_ms"] *= 2
        path.write_text(json.dumps(content))
    second = metis.plan(asked)
    assert second.question != first.question
    assert second.cost_ms > first.cost_ms


def test_one_profiled_batch_takes_activations_from_the_model_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = by_files(tmp_path / "in")
    (tmp_path / "in/profiles/DeviceType.A100_tp1_bs2.json").unlink()
    profiles = asked.load_profiles(asked.load_cluster())
    assert "one batch size is profiled of A100 tp 1, so activations are those" in caplog.text
    # 16 bits: 8 h of input, sums and norms, 4 h of queries, keys, values and output, and 2 x 4 h
    # of the MLP, all times two bytes; the sequence is 64, h is 64.
    block_mb = 64 * 2 * (4 * 64 + 4 * 64 + 2 * 4 * 64) / 2**20
    kept = ProfileTables(profiles).activation_memory("A100", 1, 3)
    assert kept[1, 2] == pytest.approx(3 * block_mb)
    assert kept[0, 1] == 0.0
