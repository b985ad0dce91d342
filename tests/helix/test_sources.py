"""Plans and points of a sweep are known by what is in their files, not by the files' names."""

from pathlib import Path

import msgspec
import pytest

import helix
from common.artifact import Ask, Case, with_field
from common.files import digest
from helix.inputs.cluster_source import ClusterSource
from helix.inputs.experiment import HERE, Experiment
from helix.inputs.model_source import ModelSource
from helix.inputs.profile import PARTS
from helix.inputs.sources import contents
from helix.plan.answer import question
from helix.run.profile import home_of
from helix.simulate.sweep import points

CONFIG = (
    '{"model_type": "llama", "num_hidden_layers": 4, "hidden_size": 64, "num_attention_heads": 4,'
    ' "vocab_size": 1000, "intermediate_size": 128}'
)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    named = {
        "model.config": tmp_path / "model" / "config.json",
        **{f"profile.source/{part}": tmp_path / "mine" / f"{part}.csv" for part in PARTS},
        "cluster.file": tmp_path / "cluster.ini",
        "workload.trace": tmp_path / "trace.csv",
    }
    for path in named.values():
        path.parent.mkdir(exist_ok=True)
        path.write_text("old")
    named["model.config"].write_text(CONFIG)
    return named


@pytest.fixture
def asked(files: dict[str, Path]) -> Experiment:
    base = helix.load("my-cluster")
    return msgspec.structs.replace(
        base,
        model=ModelSource(config=str(files["model.config"].parent)),
        cluster=ClusterSource(file=str(files["cluster.file"])),
        profile=msgspec.structs.replace(
            base.profile, source=str(files["profile.source/times"].parent)
        ),
        workload=msgspec.structs.replace(base.workload, trace=str(files["workload.trace"])),
    )


def test_every_file_counts_by_its_content(asked: Experiment, files: dict[str, Path]):
    assert contents(asked) == {field: digest(path) for field, path in files.items()}
    before = question(asked, 0)
    for field, path in files.items():
        kept = path.read_text()
        path.write_text(kept + "\n")
        assert question(asked, 0) != before, field
        path.write_text(kept)
        assert question(asked, 0) == before
    baseline = with_field(asked, "search.method", "petals")  # which no workload judges
    placed = question(baseline, 0)
    files["workload.trace"].write_text("another")
    assert question(baseline, 0) == placed
    files["cluster.file"].unlink()
    assert contents(asked)["cluster.file"] == "missing"
    assert question(baseline, 0) != placed


def test_names_of_the_catalogue_and_shipped_measurements_are_no_files():
    assert contents(helix.load("my-llama")) == {}
    assert contents(helix.load("geo-placement-swarm")) == {}


def test_a_point_of_a_sweep_is_another_one_when_its_trace_has_changed(
    asked: Experiment, files: dict[str, Path]
):
    sweep = with_field(asked, "sweep", {"workload.duration_s": [10.0, 20.0]})
    case = Case(verb="simulate", experiment=sweep)

    def ids() -> list[str]:
        how = points(case, Ask())
        assert how is not None
        return [one.id for one in how.cases]

    before = ids()
    assert ids() == before
    files["workload.trace"].write_text("another")
    assert not set(ids()) & set(before)


def test_a_profile_of_this_machine_is_measured_anew_for_another_config(tmp_path: Path):
    config = tmp_path / "config.json"
    config.write_text(CONFIG)
    tiny = helix.load("serve-tiny", "workload.duration_s=1")
    here = msgspec.structs.replace(tiny, model=ModelSource(config=str(config)))
    assert here.profile.source == HERE
    before = home_of(here)
    config.write_text(CONFIG.replace("128", "256"))
    assert home_of(here) != before
