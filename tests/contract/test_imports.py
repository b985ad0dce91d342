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
HEAVY = ("torch", "numba", "scipy", "highspy", "matplotlib", "ray", "transformers", "pandas")
COMMON_MAY = {"msgspec", "rich", "tomli_w", "typer", "common", *sys.stdlib_module_names}
OPTIONAL = {"jinja2", "matplotlib", "pynvml", "torch", "numba", "ray", "pandas"}
COMMON_LINES = 2666
"""That are not blank. The aim is 2,000; the schemas of models and devices alone have 430."""
ROOT_FILES = {"__init__.py", "__main__.py", "artifact.py"}


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
            # What is no constant names a package's own modules.
            yield from [str(ast.literal_eval(a)).partition(".")[0] for a in node.args
                        if isinstance(a, ast.Constant)]  # fmt: skip


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
        assert set(imports(tree)) <= COMMON_MAY | OPTIONAL, path.name


def test_common_stays_small():
    """Count every line that is not blank, docstrings too."""
    texts = {path.name: path.read_text().splitlines() for path in sources("common")}
    lines = {name: sum(bool(line.strip()) for line in text) for name, text in texts.items()}
    assert sum(lines.values()) <= COMMON_LINES, lines


@pytest.mark.parametrize("package", PRESENT)
def test_a_root_holds_the_face_the_declaration_and_rooms(package: str):
    assert {path.name for path in (ROOT / package).glob("*.py")} == ROOT_FILES
    rooms = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    assert rooms == {"inputs", "plan", "simulate", "run", "paper"}


@pytest.mark.parametrize("package", PRESENT)
def test_the_product_never_imports_the_paper(package: str):
    paper = f"{package}.paper"
    found = {
        str(path.relative_to(ROOT))
        for path in sources(package)
        if "paper" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.ImportFrom) and str(node.module).startswith(paper))
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == package
            and any(alias.name == "paper" for alias in node.names)
        )
        or (isinstance(node, ast.Import) and any(a.name.startswith(paper) for a in node.names))
    }
    assert found == set()


@pytest.mark.parametrize("package", PRESENT)
def test_importing_a_package_and_its_declaration_loads_nothing_heavy(package: str):
    code = f"import json, sys, {package}.artifact; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = json.loads(done.stdout)
    assert f"{package}.artifact" in loaded
    assert [name for name in HEAVY if name in loaded] == []


@pytest.mark.parametrize("folder", ["docker", "tests"])
def test_a_folder_that_would_shadow_a_package_is_no_package(folder: str):
    assert list((ROOT / folder).rglob("__init__.py")) == []
