"""The command line that every package gets, on a small artifact."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from common.verbs import app_of
from tests.common import toy

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def ask(*words: str, **hooks: str) -> Result:
    return CliRunner().invoke(app_of(toy.artifact(**hooks)), list(words))


def test_list_is_a_plain_line_an_experiment_with_whole_names():
    lines = ask("list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["one", "raises", "nothing", "two"]
    assert all("quick+full" in line for line in lines)


def test_list_takes_a_pattern_and_names_the_nearest_of_a_wrong_one():
    assert [row["name"] for row in json.loads(ask("list", "*o*", "--json").stdout)] == [
        "one",
        "nothing",
        "two",
    ]
    wrong = ask("list", "tow")
    assert wrong.exit_code == 2
    assert wrong.stderr == "error: no experiment fits tow; did you mean two?\n"


def test_list_says_what_the_last_records_cost():
    ask("simulate", "two")
    rows = {row["name"]: row for row in json.loads(ask("list", "--json").stdout)}
    assert rows["two"]["wall_s"] > 0
    assert rows["two"]["peak_rss"] > 1 << 20
    assert rows["one"]["wall_s"] is None


@pytest.mark.parametrize("words", [("plan", "one"), ("simulate", "two")])
def test_an_answer_in_json_is_all_there_is_on_stdout(words: tuple[str, str]):
    answer = json.loads(ask(*words, "--json").stdout)
    assert set(answer) == {"verb", "experiment", "summary", "metrics", "files", "plan"}
    assert (answer["verb"], answer["experiment"]) == words
    assert all(Path(file).is_file() for file in answer["files"])


def test_inputs_in_json_are_the_experiment_and_as_toml_read_back_equal():
    assert json.loads(ask("inputs", "two", "--json").stdout)["number"] == 2
    Path("mine.toml").write_text(ask("inputs", "two").stdout)
    assert json.loads(ask("inputs", "mine.toml", "--json").stdout)["number"] == 2


def test_a_report_in_json_tells_claims_failures_and_the_page():
    pytest.importorskip("jinja2")
    told = json.loads(ask("quick", "--json").stdout)
    assert (told["holds"], Path(told["page"]).is_file()) == (False, True)
    assert [record["experiment"] for record in told["failed"]] == ["raises", "nothing"]


def test_doctor_in_json_says_what_is_ok():
    checks = json.loads(ask("doctor", "--json").stdout)
    assert {"Python", "free disk", "/dev/shm"} <= {check["name"] for check in checks}
    assert all(isinstance(check["ok"], bool) for check in checks)


def test_what_is_shown_comes_before_the_summary_and_the_plan_file_after():
    assert ask("simulate", "two").stdout.splitlines() == ["a table", "sum 3"]
    assert ask("plan", "two").stdout.splitlines() == [
        "to 2",
        "plan: results/tests/plans/two.count.json",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("plan", "tow"), "'tow' is neither an experiment nor a TOML file; did you mean two?"),
        (("plan", "two", "--seed", "-1"), "--seed is -1, expected 0 or more"),
        (("quick", "--set", "a=1"), "quick is a fixed suite"),
        (("report",), "no records of any suite; run 'tests quick' first"),
        (("report", "slow"), "no suite 'slow'; expected one of quick, full, own"),
        (("simulate", "two", "--plan", "no.json"), "no such plan file"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(words: tuple[str, ...], said: str):
    done = ask(*words)
    assert done.exit_code == 2
    assert done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("INFO")]
    assert line.startswith("error: ")
    assert said in line


def test_an_extra_that_is_missing_is_named():
    done = ask("plan", "two", plan="tests.common.no_such_extra:plan")
    assert done.exit_code == 1  # a module of ours that is missing is a defect
    Path("needs.py").write_text("import surely_not_installed\n")
    sys.path.insert(0, str(Path.cwd()))
    try:
        done = ask("plan", "two", plan="needs:plan")
    finally:
        sys.path.remove(str(Path.cwd()))
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == (
        "error: tests needs surely_not_installed: pip install 'quintet[tests]'"
    )


def test_options_without_effect_are_not_offered():
    app, runner = app_of(toy.artifact()), CliRunner(env={"COLUMNS": "200"})
    shown = {v: runner.invoke(app, [v, "--help"]).stdout for v in ("list", "inputs", "quick")}
    assert "--seed" not in shown["list"]
    assert "--out" not in shown["inputs"]
    assert "--set" not in shown["quick"]
    assert "--only" in shown["quick"]


def test_it_says_its_version_and_offers_completion():
    assert "quintet" in ask("--version").stdout
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(app_of(toy.artifact()), ["--help"]).stdout
    assert "--install-completion" in shown


def complete(words: str) -> list[str]:
    """What a shell's completion would be told."""
    code = "from common.verbs import main; from tests.common import toy; main(toy.artifact())"
    count = len(words.split(" ")) - 1
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ
        | {
            "PYTHONPATH": str(ROOT),  # which an image's PYTHONSAFEPATH leaves out
            "_TESTS_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(count),
            "_TYPER_COMPLETE_TESTING": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.split()


@pytest.mark.parametrize("words", [("quick",), ("plan", "two"), ("simulate", "two")])
def test_a_negative_seed_is_one_line_for_every_verb_that_has_one(words: tuple[str, ...]):
    done = ask(*words, "--seed", "-2")
    assert (done.exit_code, done.stderr) == (2, "error: --seed is -2, expected 0 or more\n")


def test_numbers_of_numpy_are_numbers_in_json():
    numpy_plan = "tests.common.toy:numpy_plan"
    assert json.loads(ask("plan", "two", "--json", plan=numpy_plan).stdout)["plan"]["number"] == 2


def test_completion_knows_verbs_and_experiments():
    assert "simulate" in complete("tests si")
    assert complete("tests plan t") == ["two"]
