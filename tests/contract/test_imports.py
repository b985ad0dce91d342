"""Who may import whom, and how little importing a command line costs."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ARTIFACTS = ("helix", "metis", "beta", "puzzle", "vocab_parallel")
PRESENT = [name for name in ARTIFACTS if (ROOT / name / "__init__.py").exists()]
WITH_CLI = [name for name in PRESENT if (ROOT / name / "cli.py").exists()]
HEAVY = ("torch", "numba", "scipy", "highspy", "matplotlib", "ray")
COMMON_MAY = {"msgspec", "rich", "tomli_w", "common", *sys.stdlib_module_names}
COMMON_MAY_INSIDE_FUNCTIONS = COMMON_MAY | {"jinja2", "matplotlib", "pynvml"}
COMMON_LINES = 600


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the top-level name of every import below a node, by statement or by import_module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module).partition(".")[0]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield ast.literal_eval(node.args[0]).partition(".")[0]


def of_module_level(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        checking = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not checking and not isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield from imports(node)


@pytest.mark.parametrize("package", PRESENT)
def test_no_artifact_imports_another(package: str):
    others = {*ARTIFACTS} - {package}
    found = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(package)
        for name in imports(ast.parse(path.read_text()))
        if name in others
    }
    assert found == set()


def test_common_imports_no_artifact_and_little_else():
    for path in sources("common"):
        tree = ast.parse(path.read_text())
        assert set(of_module_level(tree)) <= COMMON_MAY, path.name
        assert set(imports(tree)) <= COMMON_MAY_INSIDE_FUNCTIONS, path.name


def test_common_stays_small():
    """Count every line, blank ones and docstrings too."""
    lines = {path.name: path.read_text().count("\n") for path in sources("common")}
    assert sum(lines.values()) <= COMMON_LINES, lines


@pytest.mark.parametrize("package", WITH_CLI)
def test_importing_a_command_line_loads_nothing_heavy(package: str):
    code = f"import json, sys, {package}.cli; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = json.loads(done.stdout)
    assert f"{package}.cli" in loaded
    assert [name for name in HEAVY if name in loaded] == []


@pytest.mark.parametrize("folder", ["docker", "tests"])
def test_a_folder_that_would_shadow_a_package_is_no_package(folder: str):
    assert list((ROOT / folder).rglob("__init__.py")) == []
