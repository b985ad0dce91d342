"""Cases and suites: each fails alone, is kept, and can be repeated alone."""

import json
import shutil
import signal
import subprocess
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from common.artifact import Ask, Case, Folder
from common.errors import CaseError, InputError
from common.page import Section
from common.plans import plan_for
from common.report import write_report
from common.signals import interruptible, limited
from common.suites import carry_out, do, do_all, suite_of
from common.verbs import app_of
from tests.common import toy

pytest.importorskip("jinja2")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "results", "tests")


def statuses(folder: Folder, suite: str) -> dict[str, str]:
    return {record.experiment: record.status for record in folder.records(suite).read()}


def command(*words: str, folder: Folder):
    return CliRunner().invoke(app_of(toy.artifact()), [*words, "--out", str(folder.out)])


def test_a_case_that_raises_leaves_the_rest_and_the_report_whole(folder: Folder):
    done = command("quick", folder=folder)
    assert done.exit_code == 1
    assert statuses(folder, "quick") == {
        "one": "ok",
        "raises": "failed",
        "nothing": "failed",
        "two": "ok",
    }
    errors = {r.experiment: r.error for r in folder.records("quick").read()}
    assert errors["raises"] == "ZeroDivisionError: of no use"
    assert errors["nothing"] == "there is nothing to count"
    page = (folder.out / "report.html").read_text()
    assert "ZeroDivisionError: of no use" in page
    assert "repeat: python -m tests quick --again --only raises" in done.stdout
    assert "0 of 0 claims hold" in done.stdout


def test_only_what_failed_is_repeated(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    command("quick", folder=folder)
    monkeypatch.setenv("TOY_MENDED", str(tmp_path))
    done = command("quick", "--again", "--only", "raises", folder=folder)
    assert [r.experiment for r in folder.records("quick").read()][4:] == ["raises"]
    assert done.exit_code == 1  # the other one still fails
    assert command("quick", folder=folder).exit_code == 0
    assert [r.experiment for r in folder.records("quick").read()][5:] == ["nothing"]


def test_a_failing_case_of_a_sweep_over_processes_costs_no_other(folder: Folder):
    """One worker is even killed: the pool breaks, and only its case is to blame."""
    artifact = toy.artifact(how="tests.common.toy:spread_how", point="tests.common.toy:point")
    how = suite_of(artifact, "quick", (), 0)
    failed = do_all(artifact, how, folder, Ask(folder=folder, suite="quick"), again=False)
    assert {record.experiment for record in failed} == {"raises", "nothing", "killer"}
    found = statuses(folder, "quick")
    assert found == {
        "one": "ok",
        "two": "ok",
        "raises": "failed",
        "nothing": "failed",
        "killer": "failed",
    }


def test_a_case_over_its_limit_has_failed(folder: Folder):
    slow = Case(verb="plan", experiment=toy.Experiment(name="slow", trouble="sleep"), limit_s=0.2)
    with pytest.raises(CaseError, match=r"longer than its limit of 0\.2 s"):
        do(toy.artifact(), slow, folder, Ask(folder=folder))
    assert statuses(folder, "own") == {"slow": "failed"}


def test_a_limit_leaves_the_timer_around_it_running():
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 500)
    try:
        with limited(100):
            assert signal.getitimer(signal.ITIMER_REAL)[0] <= 100
        assert 100 < signal.getitimer(signal.ITIMER_REAL)[0] <= 500
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_users_case_without_a_result_is_kept_and_a_wrong_question_is_not(folder: Folder):
    assert command("plan", "nothing", folder=folder).exit_code == 2
    assert command("plan", "one", "--set", "number=many", folder=folder).exit_code == 2
    assert statuses(folder, "own") == {"nothing": "failed"}


def test_a_plan_is_taken_again_for_the_same_question_only(folder: Folder):
    artifact, ask = toy.artifact(), Ask(folder=folder)
    case = Case(verb="simulate", experiment=toy.named()["one"])
    do(artifact, msgspec.structs.replace(case, verb="plan"), folder, ask)
    path = folder.at("plans", "one.count.json")
    written = json.loads(path.read_text())
    path.write_text(json.dumps(written | {"number": 7}))
    assert plan_for(artifact, case, ask).number == 7
    other = msgspec.structs.replace(case.experiment, number=2)
    assert plan_for(artifact, msgspec.structs.replace(case, experiment=other), ask).number == 2
    assert json.loads(path.read_text())["number"] == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"schema":"toy-plan/1","experi', "truncated.*; plan again"),
        (b'{"schema":"toy-plan/9"}', "it is a toy-plan/9, expected toy-plan/1; plan again"),
        (
            b'{"schema":"toy-plan/1","experiment":"one","method":"count","number":-1}',
            "number is -1",
        ),
        (b"\xff", "; plan again"),
    ],
)
def test_a_wrong_plan_file_is_one_sentence(folder: Folder, content: bytes, said: str):
    path = folder.out / "plan.json"
    path.parent.mkdir()
    path.write_bytes(content)
    case = Case(verb="simulate", experiment=toy.named()["one"])
    with pytest.raises(InputError, match=said) as error:
        plan_for(toy.artifact(), case, Ask(folder=folder), path)
    assert str(error.value).startswith(str(path))


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    case = Case(verb="simulate", experiment=toy.named()["two"])
    assert carry_out(toy.artifact(), case, Ask()).metrics[0].value == 3
    assert list(tmp_path.iterdir()) == []


def test_other_ranks_than_the_first_keep_no_record(folder: Folder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "1")
    given = toy.Plan(experiment="one", method="count", number=1)
    do(toy.artifact(), Case(verb="simulate", experiment=toy.named()["one"]), folder,
       Ask(folder=folder), given)  # fmt: skip
    assert folder.records("own").read() == []


def test_a_pattern_that_fits_nothing_names_the_nearest():
    with pytest.raises(InputError, match="no such experiment in quick; did you mean raises"):
        suite_of(toy.artifact(), "quick", (), 0, "rases")


def test_a_ctrl_c_that_got_lost_is_remembered():
    before = signal.getsignal(signal.SIGINT)
    with interruptible() as check:
        check()
        # As in a finaliser, where Python drops the exception that the handler raises.
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            check()
    assert signal.getsignal(signal.SIGINT) is before


def test_peak_memory_is_the_own_process_and_not_its_starter():
    """Linux hands getrusage's peak on from a large starter to a small child."""
    code = (
        "import subprocess, sys; big = bytearray(400 << 20); big[::4096] = b'x' * len(big[::4096]);"
        "print(subprocess.check_output([sys.executable, '-c',"
        "'from common.provenance import peak_rss; print(peak_rss())'], text=True))"
    )
    root = Path(__file__).parents[2]
    import sys

    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert int(out.stdout) < 200 << 20, out.stderr


def test_ones_own_experiment_has_its_plan_drawn_and_its_answers_side_by_side(folder: Folder):
    for words in (("plan", "one"), ("simulate", "two"), ("simulate", "two", "--set", "number=4")):
        assert command(*words, folder=folder).exit_code == 0
    artifact = toy.artifact(figure="tests.common.toy:figure")
    write_report(artifact, folder, None)
    section = msgspec.json.decode(folder.at("section.json").read_bytes(), type=Section)
    two, one = section.own
    assert (two.experiment, one.experiment) == ("two", "one")
    assert two.command == "python -m tests plan two"
    assert two.tables[0].columns == ("", "simulate, number 2", "simulate, number 4")
    assert two.tables[0].rows == (("sum", 3, 10),)
    (drawn,) = two.figures
    assert (folder.out / drawn.svg).is_file()
    page = (folder.out / "report.html").read_text()
    assert "Yours: two" in page
    assert drawn.title in page


def test_a_plan_that_is_gone_or_cannot_be_drawn_costs_the_drawing_alone(folder: Folder):
    command("plan", "one", folder=folder)
    write_report(toy.artifact(), folder, None)
    shutil.rmtree(folder.at("plans"))
    write_report(toy.artifact(figure="tests.common.toy:figure"), folder, None)
    section = msgspec.json.decode(folder.at("section.json").read_bytes(), type=Section)
    assert [own.figures for own in section.own] == [()]
