"""Every package has a notebook that runs as it stands and shows its figures where it is read."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="notebooks need the extra dev")

ROOT = Path(__file__).parents[2]
PACKAGES = ("helix", "metis", "beta", "puzzle", "vocab_parallel")
each_package = pytest.mark.parametrize("package", PACKAGES)


def notebook(package: str):  # type: ignore[no-untyped-def]
    path = ROOT / package / "tutorial.ipynb"
    if not path.exists() and not (ROOT / package).exists():
        pytest.skip("an image has one package")
    return nbformat.read(path, as_version=4)


@each_package
def test_outputs_are_kept_with_a_figure_and_no_error(package: str):
    cells = [cell for cell in notebook(package).cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    assert all(cell.execution_count for cell in cells)
    assert not [output for output in outputs if output.output_type == "error"]
    assert [output for output in outputs if "image/png" in output.get("data", {})]


@each_package
def test_it_is_short_and_plans_by_the_library(package: str):
    book = notebook(package)
    source = "\n".join(cell.source for cell in book.cells if cell.cell_type == "code")
    assert f"import {package}" in source
    assert f"{package}.load(" in source
    assert f"{package}.plan(" in source
    assert ".figure()" in source
    assert len(book.cells) <= 20


@pytest.mark.slow
@pytest.mark.timeout(900)
@each_package
@pytest.mark.filterwarnings("ignore")  # of the kernel's own libraries
def test_it_runs_as_it_stands(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    client = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    where = {"metadata": {"path": str(tmp_path)}}
    client.NotebookClient(notebook(package), timeout=800, resources=where).execute()
    assert list(tmp_path.iterdir()) == []  # the library writes nothing unasked
