"""All packages have the same verbs and options: those of one table, changed only on purpose."""

import importlib
import inspect
import json
import subprocess
import sys
import tomllib
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
import typer.main

from common.library import Library
from common.teach import meanings, taught
from common.verbs import app_of

ROOT = Path(__file__).parents[2]
ARTIFACTS = ("helix", "metis", "beta", "puzzle", "vocab_parallel")
PRESENT = [name for name in ARTIFACTS if (ROOT / name / "artifact.py").exists()]

EXPERIMENT, SUITE, PATTERN = (
    ("EXPERIMENT", "required"),
    ("SUITE", "optional"),
    ("PATTERN", "optional"),
)
ASKED = {"--out", "--seed", "--set", "--json", "--verbose -v"}
TABLE = {
    "list": ([PATTERN], {"--out", "--json", "--verbose -v"}),
    "inputs": ([EXPERIMENT], {"--all", "--set", "--json", "--verbose -v"}),
    "profile": ([EXPERIMENT], ASKED),
    "plan": ([EXPERIMENT], ASKED | {"--method"}),
    "simulate": ([EXPERIMENT], ASKED | {"--plan"}),
    "run": ([EXPERIMENT], ASKED | {"--plan", "--world-size", "--backend"}),
    "report": ([SUITE], {"--out", "--json", "--verbose -v"}),
    "quick": ([], ASKED | {"--again", "--only"}),
    "full": ([], ASKED | {"--again", "--only"}),
    "doctor": ([], {"--json", "--verbose -v"}),
}
OF_ONE = {
    ("helix", "plan"): {"--export", "--objective"},
    ("helix", "simulate"): {"--ray"},
    ("metis", "plan"): {"--export", "--replan"},
    ("beta", "run"): {"--api-key"},
    ("beta", "quick"): {"--ray"},
    ("beta", "full"): {"--ray"},
}
"""Options that only one package has."""


@pytest.fixture(params=PRESENT)
def package(request: pytest.FixtureRequest) -> str:
    return request.param


def artifact_of(package: str) -> Any:
    return importlib.import_module(f"{package}.artifact").ARTIFACT


def commands_of(package: str) -> dict[str, Any]:
    return typer.main.get_command(app_of(artifact_of(package))).commands  # type: ignore[attr-defined]


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
    found = {}
    for verb, command in commands_of(package).items():
        parameters = [p for p in command.params if p.name != "help"]
        arguments = [
            (p.metavar or str(p.name).upper(), "required" if p.required else "optional")
            for p in parameters
            if p.param_type_name == "argument"
        ]
        options = {" ".join(p.opts) for p in parameters if p.param_type_name == "option"}
        own = OF_ONE.get((package, verb), set())
        assert own <= options, verb
        found[verb] = (arguments, options - own)
    assert found == TABLE


def test_every_verb_and_option_explains_itself(package: str):
    for verb, command in commands_of(package).items():
        assert command.help, verb
        for parameter in command.params:
            assert getattr(parameter, "help", None), (verb, parameter.name)


def test_every_hook_is_there(package: str):
    artifact = artifact_of(package)
    assert all(callable(artifact.hook(name)) for name in artifact.hooks)
    needed = {"experiment", "plan_type", "experiments", "plan", "simulate", "run", "profile"}
    needed |= {"check", "question", "figure", "paper_experiments", "suites", "section"}
    assert needed <= set(artifact.hooks)


FACE = ("load", "experiments", "plan", "simulate", "profile", "run")


def test_the_library_has_the_same_functions_everywhere(package: str):
    module, library = importlib.import_module(package), Library("any")
    assert sorted(module.__all__) == sorted(FACE)
    for name in FACE:
        function, same = getattr(module, name), getattr(library, name)
        assert callable(function)
        if name in ("load", "experiments", "profile"):
            assert inspect.signature(function) == inspect.signature(same)
            assert function.__doc__
    assert module.plan.__name__ == f"{package}.plan"  # still the room to import from


def test_what_inputs_prints_reads_back_equal_and_explains_every_field(package: str):
    artifact = artifact_of(package)
    kind = artifact.hook("experiment")
    for name, experiment in artifact.named().items():
        for everything in (False, True):
            text = taught(experiment, everything=everything)
            assert msgspec.convert(tomllib.loads(text), kind, str_keys=True) == experiment, name


def structs_of(kind: Any, found: dict[type, None]) -> dict[type, None]:
    """The struct types that a type is made of."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind not in found:
        found[kind] = None
        for hint in typing.get_type_hints(kind).values():
            structs_of(hint, found)
    for part in typing.get_args(kind):
        structs_of(part, found)
    return found


def test_every_field_of_an_experiment_has_its_meaning(package: str):
    """Fields that hold tables may leave it to the table's own docstring."""
    mute = [
        f"{struct.__name__}.{name}"
        for struct in structs_of(artifact_of(package).hook("experiment"), {})
        for name, said in meanings(struct).items()
        if not said and name not in ("name", "about")
        if not structs_of(typing.get_type_hints(struct)[name], {})
    ]
    assert mute == []


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
