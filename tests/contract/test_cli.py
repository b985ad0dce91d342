"""All packages have the same verbs and options: those of one table, changed only on purpose."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer
import typer.main

ROOT = Path(__file__).parents[2]
ARTIFACTS = ("helix", "metis", "beta", "puzzle", "vocab_parallel")
WITH_CLI = [name for name in ARTIFACTS if (ROOT / name / "cli.py").exists()]

SHARED = {"--out", "--seed", "--set", "--verbose -v"}
EXPERIMENT = ("EXPERIMENT", "required")
TABLE = {
    "list": ([], {"--json"}),
    "inputs": ([EXPERIMENT], set()),
    "profile": ([EXPERIMENT], set()),
    "plan": ([EXPERIMENT], {"--method"}),
    "simulate": ([EXPERIMENT], {"--plan"}),
    "run": ([EXPERIMENT], {"--plan", "--world-size", "--backend"}),
    "report": ([("SUITE", "optional")], set()),
    "quick": ([], {"--again"}),
    "full": ([], {"--again"}),
}
OF_ONE = {
    ("helix", "plan"): {"--objective"},
    ("helix", "simulate"): {"--ray"},
    ("beta", "quick"): {"--ray"},
    ("beta", "full"): {"--ray"},
}
"""Options that only one package has."""

pytestmark = pytest.mark.skipif(not WITH_CLI, reason="no package has a command line yet")


@pytest.fixture(params=WITH_CLI)
def package(request: pytest.FixtureRequest) -> str:
    return request.param


def cli_of(package: str) -> ModuleType:
    return importlib.import_module(f"{package}.cli")


def run(package: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", package, *arguments],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_verbs_and_options_are_those_of_the_table(package: str):
    app = cli_of(package).app
    assert isinstance(app, typer.Typer)
    found = {}
    for verb, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        parameters = [p for p in command.params if p.name != "help"]
        arguments = [
            (p.metavar or str(p.name).upper(), "required" if p.required else "optional")
            for p in parameters
            if p.param_type_name == "argument"
        ]
        options = {" ".join(p.opts) for p in parameters if p.param_type_name == "option"}
        own = OF_ONE.get((package, verb), set())
        assert own <= options, verb
        found[verb] = (arguments, options - SHARED - own)
        assert options >= SHARED, verb
    assert found == TABLE


def test_every_verb_and_option_explains_itself(package: str):
    for verb, command in typer.main.get_command(cli_of(package).app).commands.items():  # type: ignore[attr-defined]
        assert command.help, verb
        for parameter in command.params:
            assert getattr(parameter, "help", None), (verb, parameter.name)


def test_an_unknown_experiment_is_one_line_and_status_2(package: str, tmp_path: Path):
    done = run(package, "inputs", "no-such-experiment", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "no-such-experiment" in done.stderr


def test_list_prints_json_and_touches_nothing(package: str, tmp_path: Path):
    done = run(package, "list", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) > 0
    assert list(tmp_path.iterdir()) == []
