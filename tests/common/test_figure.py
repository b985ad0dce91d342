"""Figures are drawn in one style, the same bytes each time, text kept as text."""

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

import matplotlib as mpl
from matplotlib.figure import Figure

from common import figure


def drawn(path: Path) -> tuple[Path, Path]:
    with figure.style():
        drawing = Figure()
        axes = drawing.add_subplot()
        axes.plot([1, 2], [3, 4], label="metis")
        axes.bar(1, 2, **figure.method_style(1))
        axes.set_xlabel("search steps")
    return figure.save(drawing, path / "figures" / "steps.v1")


def test_a_figure_is_saved_as_svg_and_png_beside_each_other(tmp_path: Path):
    svg, png = drawn(tmp_path)
    assert (svg, png) == (
        tmp_path / "figures" / "steps.v1.svg",
        tmp_path / "figures" / "steps.v1.png",
    )
    assert png.read_bytes().startswith(b"\x89PNG")
    assert ET.parse(svg).getroot().tag.endswith("svg")


def test_text_stays_text(tmp_path: Path):
    svg, _ = drawn(tmp_path)
    assert "search steps</text>" in svg.read_text()


def test_the_same_drawing_gives_the_same_bytes(tmp_path: Path):
    first, second = drawn(tmp_path / "a"), drawn(tmp_path / "b")
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_the_style_ends_with_its_context():
    before = mpl.rcParams["font.size"]
    with figure.style():
        assert mpl.rcParams["font.size"] == 8
    assert mpl.rcParams["font.size"] == before


def test_every_method_looks_its_own_way_and_repeats_after_ten():
    looks = [tuple(figure.method_style(i).values()) for i in range(10)]
    assert len({colour for colour, _ in looks}) == 10
    assert len({hatch for _, hatch in looks}) == 10
    assert figure.method_style(10) == figure.method_style(0)


def test_methods_and_lines_share_their_colours():
    with figure.style():
        cycle = mpl.rcParams["axes.prop_cycle"].by_key()["color"]
    assert [f"#{colour.lstrip('#')}" for colour in cycle] == [
        figure.method_style(i)["color"] for i in range(10)
    ]


def test_no_hatch_makes_a_heavy_drawing(tmp_path: Path):
    for i in range(10):
        with figure.style():
            drawing = Figure()
            drawing.add_subplot().bar([1, 2], [1, 2], **figure.method_style(i))
        svg, _ = figure.save(drawing, tmp_path / str(i))
        assert svg.stat().st_size < 30_000


def test_importing_the_module_loads_no_matplotlib():
    code = "import sys, common.figure; sys.exit('matplotlib' in sys.modules)"
    root = Path(figure.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
