"""This machine's profile: measured once, by real ranks where tensors are split, written whole."""

from pathlib import Path

import msgspec
import pytest

from beta.inputs.examples import serve
from beta.inputs.experiment import Experiment, ModelSettings
from beta.inputs.profile import Config, read_profiles
from beta.inputs.serving import MeasureSettings
from beta.inputs.shapes import SHAPES
from beta.plan.answer import question
from beta.run.profile import measure, prepare, profile
from beta.run.timing import Task
from common.artifact import Ask, Case, Folder


def micro(name: str = "micro", **changes: object) -> Experiment:
    """Return an experiment of which this machine's profile takes a moment."""
    models = (ModelSettings(types=("bert-micro",), count=2, slo_s=5.0, rate=1.0),)
    few = MeasureSettings(op=(1,), pp=(1, 2), runs=1)
    return msgspec.structs.replace(serve(), name=name, models=models, measure=few, **changes)


def test_a_profile_is_measured_once_for_its_folder_and_counts_by_what_is_in_it(tmp_path: Path):
    ask = Ask(folder=Folder(tmp_path, "beta"))
    case = Case(verb="plan", experiment=micro())
    first = prepare(case, ask).experiment
    path = tmp_path / "beta/profiles/micro.csv"
    assert first.profile == str(path)
    assert [*read_profiles(path)["bert-micro"].records] == [Config(1, 1), Config(1, 2)]
    assert [file.name for file in path.parent.iterdir()] == ["micro.csv"]  # nothing half written
    before = path.read_bytes(), question(first, 0)
    assert prepare(case, ask).experiment == first
    assert (path.read_bytes(), question(first, 0)) == before
    files, lines = profile(micro(), Folder(tmp_path, "beta"), 0)
    assert files == [path]
    assert f"--set profile={path}" in lines[0]
    assert (path.read_bytes() == before[0]) == (question(first, 0) == before[1])


def test_without_a_folder_a_profile_is_measured_once_in_a_process_and_kept_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    case = Case(verb="plan", experiment=micro())
    first, second = (prepare(case, Ask()).experiment for _ in range(2))
    assert first == second
    assert Path(first.profile).is_file()
    other = prepare(Case(verb="plan", experiment=micro(name="other")), Ask()).experiment
    assert other.profile == first.profile
    assert list(tmp_path.iterdir()) == []


def test_a_profile_that_is_named_is_taken_as_it_is():
    case = Case(verb="plan", experiment=micro(profile="somewhere.csv"))
    assert prepare(case, Ask()) is case


@pytest.mark.slow
def test_a_tensor_degree_is_timed_by_as_many_ranks():
    shape = SHAPES["bert-micro"]
    rows = measure(Task("bert-micro", shape, shape.layers, 2, (1, 2), (1,), 1))
    assert [(row.config, row.stage) for row in rows] == [
        (Config(2, 1), 0),
        (Config(2, 2), 0),
        (Config(2, 2), 1),
    ]
    assert all(row.latency_s > 0 for row in rows)
    whole = measure(Task("bert-micro", shape, shape.layers, 1, (1,), (1,), 1))
    assert rows[0].weight_bytes is not None
    assert whole[0].weight_bytes is not None
    assert whole[0].weight_bytes / 2 < rows[0].weight_bytes < whole[0].weight_bytes
