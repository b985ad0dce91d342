"""CONTRIBUTING's recipe for a further artifact, done as it stands there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
if not (ROOT / "CONTRIBUTING.md").exists():
    pytest.skip("an image has no CONTRIBUTING.md", allow_module_level=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("newcomer")
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for path, code in re.findall(r"```python\n# (sixth/\S+)\n(.*?)```", text, re.DOTALL):
        (home / path).parent.mkdir(exist_ok=True)
        (home / path).write_text(code)
    return home


def sixth(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sixth", *words],
        cwd=home,
        env=os.environ | {"PYTHONPATH": f"{home}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_is_one_declaration_inputs_and_plan_and_copies_nothing(home: Path):
    files = sorted(path.name for path in (home / "sixth").glob("*.py"))
    assert files == ["__main__.py", "artifact.py", "inputs.py", "plan.py"]
    assert not re.search(r"argparse|typer|RecordFile|write_text", "".join(
        path.read_text() for path in (home / "sixth").glob("*.py")
    ))  # fmt: skip


def test_it_lists_explains_and_plans(home: Path):
    assert sixth(home, "list").stdout.split()[0] == "boxes"
    taught = sixth(home, "inputs", "boxes").stdout
    assert "load = 10  # Things to pack" in taught
    (home / "mine.toml").write_text(taught.replace("load = 10", "load = 11"))
    done = sixth(home, "plan", "mine.toml", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["plan"]["boxes"] == 4
    assert json.loads(Path(home, answer["files"][0]).read_text())["boxes"] == 4
    (record,) = (home / "results/sixth/own.jsonl").read_text().splitlines()
    assert json.loads(record)["metrics"][0]["value"] == 4


def test_its_verbs_are_those_it_has_hooks_for(home: Path):
    text = sixth(home, "--help").stdout
    assert {verb for verb in ("list", "inputs", "plan", "doctor") if f" {verb} " in text} == {
        "list", "inputs", "plan", "doctor",
    }  # fmt: skip
    assert not re.search(r"│ (run|simulate|profile|quick|full) ", text)


def test_a_mistake_is_one_line(home: Path):
    done = sixth(home, "plan", "boxes", "--set", "rom=4")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: boxes --set rom=4: Object contains unknown field `rom`; did you mean room?"
    ]
