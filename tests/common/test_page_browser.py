"""The report in a real browser: a phone, a desk, a dark room."""

import html
import json
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from common.page import render

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH (Debian package chromium)"),
]

# Runs in a copy of the page inside a frame, because a browser window has a least width.
MEASURE = """<script>
const box = e => e.getBoundingClientRect();
const ground = s => getComputedStyle(document.querySelector(s)).backgroundColor;
const all = s => [...document.querySelectorAll(s)];
addEventListener("load", () => parent.postMessage({
  width: innerWidth,
  overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  outside: all("body *").filter(e => box(e).right > innerWidth + 1 && !e.closest(".scroll"))
    .map(e => e.tagName),
  boxes: all(".scroll").map(e => ({hidden: e.scrollWidth - e.clientWidth, style:
    getComputedStyle(e).overflowX, focusable: e.tabIndex})),
  drawings: all("figure svg").map(e => ({width: box(e).width, height: box(e).height,
    sheet: box(e.closest(".sheet")).width, clipped: all("[clip-path]").length})),
  verdicts: all(".badge").map(e => ({right: box(e).right, text: e.textContent})),
  text: parseFloat(getComputedStyle(document.querySelector("td")).fontSize),
  body: ground("body"), sheet: ground(".sheet"),
}, "*"));
</script></body>"""

WIDE = ("--window-size=1500,900", "--hide-scrollbars")  # as on a phone

FRAME = """<body><iframe src="{page}" style="width:{width}px;height:800px;border:0"></iframe>
<script>
addEventListener("message", e => document.body.textContent = JSON.stringify(e.data));
</script>
"""


def chromium(page: Path, folder: Path, *flags: str) -> str:
    assert CHROMIUM is not None
    switches = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
        "--disable-background-networking --disable-component-update --virtual-time-budget=5000"
    )
    command = [CHROMIUM, *switches.split(), f"--user-data-dir={folder}", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout


def measured(results: Path, folder: Path, width: int, *flags: str) -> dict:
    page = render(results)
    copy = folder / "measured.html"
    copy.write_text(page.read_text().replace("</body>", MEASURE))
    frame = folder / "frame.html"
    frame.write_text(FRAME.format(page=copy.name, width=width))
    dom = chromium(frame, folder / "profile", "--dump-dom", *WIDE, *flags)
    found = re.search(r"<body>(\{.*\})</body>", dom, re.DOTALL)
    assert found is not None, dom[:2000]
    return json.loads(html.unescape(found[1]))


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_page_never_scrolls_sideways(results: Path, folder: Path, width: int):
    found = measured(results, folder, width)
    assert found["width"] == width
    assert found["overflow"] == 0
    assert found["outside"] == []


def test_on_a_phone_wide_tables_scroll_inside_their_box(results: Path, folder: Path):
    found = measured(results, folder, 390)
    wide = [box for box in found["boxes"] if box["hidden"] > 0]
    assert len(wide) >= 2  # the twelve columns of both artifacts' tables at the least
    assert all(box["style"] == "auto" and box["focusable"] == 0 for box in found["boxes"])
    assert found["text"] >= 14
    verdicts = [badge for badge in found["verdicts"] if "pass" in badge["text"]]
    assert verdicts
    assert all(badge["right"] <= 390 for badge in verdicts)


def test_figures_are_drawn_and_readable(results: Path, folder: Path):
    for width in (390, 1280):
        drawings = measured(results, folder, width)["drawings"]
        assert len(drawings) == 2
        for drawing in drawings:
            assert drawing["width"] / drawing["height"] == pytest.approx(7 / 2.2, rel=0.02)
            assert drawing["width"] >= 440  # 7 inches wide: its 8 pt text stays legible
            assert drawing["clipped"] > 0


def test_a_dark_room_gets_a_dark_page_with_light_sheets_under_figures(results: Path, folder: Path):
    def brightness(colour: str) -> float:
        return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3

    light = measured(results, folder, 1280, "--blink-settings=preferredColorScheme=1")
    dark = measured(results, folder, 1280, "--blink-settings=preferredColorScheme=0")
    assert brightness(light["body"]) > 230
    assert brightness(dark["body"]) < 40
    assert brightness(dark["sheet"]) > 230


def test_the_browser_keeps_every_table_and_figure(results: Path, folder: Path):
    dom = chromium(render(results), folder / "profile", "--dump-dom")
    assert len(re.findall(r"<table\b", dom)) == 4
    assert len(re.findall(r"<figure\b", dom)) == 2
    assert len(re.findall(r"<svg\b[^>]*aria-label=", dom)) == 2
    assert "1 of 3 claims holds" in dom


def test_the_page_can_be_pictured(results: Path, folder: Path):
    picture = folder / "page.png"
    size = ("--window-size=1280,2000", "--hide-scrollbars")
    chromium(render(results), folder / "profile", f"--screenshot={picture}", *size)
    content = picture.read_bytes()
    assert struct.unpack(">II", content[16:24]) == (1280, 2000)
    assert len(content) > 50_000  # an empty page of this size takes some 10 kB
