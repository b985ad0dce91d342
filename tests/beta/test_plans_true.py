"""A plan is taken again only for the question that it answers: the content of its files counts."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from beta.artifact import ARTIFACT
from beta.inputs.azure import DAY_MINUTES
from beta.inputs.examples import small
from beta.inputs.experiment import ClusterSettings, Experiment, ModelSettings
from beta.inputs.load import load
from beta.inputs.sources import traffic_files
from beta.inputs.traffic import Traffic, Training
from beta.plan.answer import question
from common.artifact import Ask, Case, Folder, with_field
from common.plans import make_plan, plan_for

HEAD = "model,op,pp,batch,stage,latency_s,weight_bytes\n"
LOG = "arrival_s,model\n"


def mine(folder: Path) -> Experiment:
    """Return two models on a device that holds one of them, with a log and a profile of one's own.

    Both files are written so that only `a` is asked for, and answered in time.
    """
    (folder / "log.csv").write_text(LOG + "".join(f"{second},a-0\n" for second in range(20)))
    (folder / "profile.csv").write_text(HEAD + "a,1,1,1,0,0.1,9e9\nb,1,1,1,0,0.1,9e9\n")
    return Experiment(
        name="mine",
        cluster=ClusterSettings(devices=1),
        models=(ModelSettings(types=("a", "b"), count=2, slo_s=1.0),),
        profile=str(folder / "profile.csv"),
        traffic=Traffic(source="requests", path=str(folder / "log.csv"), rate=1.0),
        training=Training(on="same"),
    )


def planned(experiment: Experiment, folder: Folder) -> Any:
    return plan_for(ARTIFACT, Case(verb="simulate", experiment=experiment), Ask(folder=folder))


def test_a_log_with_another_content_behind_the_same_path_is_planned_for_anew(tmp_path: Path):
    experiment, folder = mine(tmp_path), Folder(tmp_path / "out", "beta")
    first = planned(experiment, folder)
    assert first.periods[0].groups[0].models == ("a-0",)
    assert planned(experiment, folder) == first
    log = tmp_path / "log.csv"
    log.write_text(log.read_text().replace("a-0", "b-0"))  # as many bytes as before
    second = planned(experiment, folder)
    assert second.question != first.question
    assert second.periods[0].groups[0].models == ("b-0",)  # with the old plan nobody is answered
    assert second.attainment == 1


def test_a_profile_with_another_content_behind_the_same_path_is_planned_for_anew(tmp_path: Path):
    experiment, folder = mine(tmp_path), Folder(tmp_path / "out", "beta")
    first = planned(experiment, folder)
    assert first.attainment == 1
    (tmp_path / "profile.csv").write_text(HEAD + "a,1,1,1,0,2.0,9e9\nb,1,1,1,0,0.1,9e9\n")
    second = planned(experiment, folder)
    assert second.question != first.question
    assert second.attainment == 0  # two seconds never fit into one


def test_where_files_lie_does_not_change_the_question_but_what_is_in_them_does(tmp_path: Path):
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    here, there = mine(tmp_path / "x"), mine(tmp_path / "y")
    assert question(here, 0) == question(there, 0)
    (tmp_path / "y/log.csv").write_text(LOG + "1,a-0\n")
    assert question(here, 0) != question(there, 0)
    (tmp_path / "y/log.csv").unlink()
    assert question(here, 0) != question(there, 0)  # and it is the plan that says what is missing


def test_how_a_plan_is_played_is_no_part_of_its_question_but_how_it_is_placed_is():
    asked = question(small(), 0)
    assert asked != question(with_field(small(), "simulator.kind", "events"), 0)  # best by that
    alone = with_field(small(), "placement.method", "mp-search")
    assert question(alone, 0) == question(with_field(alone, "simulator.kind", "events"), 0)
    assert asked == question(with_field(small(), "serve.port", 8000), 0)
    assert asked != question(with_field(small(), "placement.method", "sr-greedy"), 0)
    assert asked != question(with_field(small(), "traffic.duration_s", 60.0), 0)
    assert asked != question(small(), 1)


def test_every_day_that_a_slice_needs_counts(tmp_path: Path):
    days = [tmp_path / f"invocations_per_function_md.anon.d{day:02d}.csv" for day in (1, 2, 3)]
    head = ["HashOwner", "HashApp", "HashFunction", "Trigger", *map(str, range(1, 1441))]
    for day in days:
        row = ["o", "a", "f", "t", *["1"] * DAY_MINUTES]
        day.write_text(f"{','.join(head)}\n{','.join(row)}\n")
    traffic = Traffic(source="azure2019", path=str(tmp_path), start="0.0.0", end="0.0.2")
    one = ModelSettings(types=("bert-1.3b",), slo_s=1.0)
    experiment = msgspec.structs.replace(small(), models=(one,), traffic=traffic)
    assert traffic_files(experiment) == days[:1]
    before = question(experiment, 0), len(load(experiment).test)
    later = with_field(with_field(experiment, "training.on", "slice"), "training.end", "1.0.1")
    assert traffic_files(later) == days[:2]
    days[2].write_text("of a day that is not asked for")
    assert question(experiment, 0) == before[0]
    days[0].write_text(days[0].read_text().replace("f,t,1,1,", "f,t,99,99,", 1))
    assert question(experiment, 0) != before[0]
    assert len(load(experiment).test) > before[1]  # nor is the old content kept in this process


def test_a_plan_that_was_cut_off_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    experiment, folder = mine(tmp_path), Folder(tmp_path / "out", "beta")
    first = planned(experiment, folder)
    (path,) = folder.at("plans").iterdir()
    path.write_bytes(path.read_bytes()[:-40])
    assert planned(experiment, folder) == first
    assert "plan again" in caplog.text
    assert planned(experiment, folder) == first
    made = make_plan(ARTIFACT, Case(verb="plan", experiment=experiment), Ask(folder=folder))
    assert made.plan == first
