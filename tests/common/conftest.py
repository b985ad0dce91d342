"""What the tests of common share: records, claims and a results folder worth rendering."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.case import case_id
from common.claims import Claim, check
from common.page import Figure, Section, Table, write_section
from common.provenance import save
from common.record import Metric, Record


@pytest.fixture(autouse=True)
def untouched_root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:], root.level = handlers, level


@pytest.fixture(scope="session")
def make_record() -> Callable[..., Record]:
    def make(steps: float = 612, **fields: object) -> Record:
        case = fields.setdefault("case", {"row": 1, "method": "metis"})
        config = fields.setdefault("config", {"case": case, "seed": 0})
        known: dict[str, object] = {
            "artifact": "metis",
            "suite": "quick",
            "experiment": "table1",
            "origin": "planned",
            "case_id": case_id(config),
            "metrics": (Metric(name="search.steps", value=steps, unit="1"),),
            "provenance": "cafe0000-1111",
        }
        return Record(**known | fields)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def make_claim() -> Callable[..., Claim]:
    def make(**fields: object) -> Claim:
        known: dict[str, object] = {
            "id": "row1-count",
            "text": "Row 1: search steps",
            "source": "Table 1",
            "suites": ("quick",),
            "experiment": "table1",
            "case": {"row": 1, "method": "metis"},
            "metric": "search.steps",
            "unit": "1",
            "origin": "planned",
        }
        if "versus" not in fields:
            known["expected"] = 612
        return Claim(**known | fields)  # type: ignore[arg-type]

    return make


@pytest.fixture
def results(tmp_path: Path, make_results: Callable[[Path], Path]) -> Path:
    return make_results(tmp_path)


@pytest.fixture(scope="session")
def make_results(
    make_record: Callable[..., Record], make_claim: Callable[..., Claim]
) -> Callable[[Path], Path]:
    """Return what fills a folder with two artifacts: passed, failed and missing claims, figures."""
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    from matplotlib.figure import Figure as Drawing

    from common import figure

    claims = [
        make_claim(),
        make_claim(id="off", text="A cost <that> differs & fails", expected=600, tolerance=0.01),
        make_claim(id="lost", text="Nobody ran this", experiment="another"),
    ]

    def make(out: Path) -> Path:
        for artifact in ("helix", "metis"):
            with figure.style():
                drawing = Drawing(figsize=(7, 2.2))
                axes = drawing.add_subplot()
                for method in range(3):
                    look = figure.method_style(method)
                    axes.bar(method, 10 + method, label=f"method {method}", **look)
                axes.legend()
            figure.save(drawing, out / artifact / "figures" / "steps")
            shown = Figure(
                title=f"Steps of {artifact}",
                svg=f"{artifact}/figures/steps.svg",
                alt=f'Three "bars" of {artifact}',
            )
            section = Section(
                artifact=artifact,
                title=f"The {artifact} artifact",
                intro="What it does.\n\nAnd why.",
                tables=(
                    Table(
                        title="All rows",
                        columns=(
                            "row",
                            "a rather long column name",
                            "wall time",
                            "note",
                            *"abcdefgh",
                        ),
                        rows=(
                            (1, 1714619, 0.0123456789, None, *[1234567] * 8),
                            (2, 3, 98765.4321, "x<y", *[7654321] * 8),
                        ),
                    ),
                ),
                figures=(shown,),
                verdicts=tuple(check(claims, [make_record()], "quick"))
                if artifact == "metis"
                else (),
                provenance=(save(out), "gone-gone"),
                notes=("A note.",),
            )
            write_section(out, section)
        return out

    return make
