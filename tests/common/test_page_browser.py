"""The report in a real browser: a phone, a desk, a dark room."""

import html
import json
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
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
  verdicts: all("section .badge").map(e => ({right: box(e).right, text: e.textContent})),
  claims: all(".claims tr[id]").map(e => all("td.word, td.n").filter(c => c.closest("tr") == e)
    .map(c => box(c)).map(c => [c.left, c.right, c.width])),
  height: document.documentElement.scrollHeight,
  first: all("main section figure").map(e => box(e).top + scrollY)[0],
  text: parseFloat(getComputedStyle(document.querySelector("td")).fontSize),
  body: ground("body"), sheet: ground(".sheet"),
}, "*"));
</script></body>"""

WIDE = ("--window-size=2100,900", "--hide-scrollbars")  # as on a phone

WIDTHS = (320, 390, 1280)
FRAMES = """<body>{frames}<script>
const found = [];
addEventListener("message", e => {{
  found.push(e.data);
  if (found.length == {count}) document.body.textContent = JSON.stringify(found);
}});
</script>
"""
FRAME = '<iframe src="{page}" style="width:{width}px;height:800px;border:0"></iframe>'


def chromium(page: Path, folder: Path, *flags: str) -> str:
    assert CHROMIUM is not None
    switches = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
        "--disable-background-networking --disable-component-update --virtual-time-budget=5000"
    )
    profile = folder / f"profile{len(list(folder.iterdir()))}"
    command = [CHROMIUM, *switches.split(), f"--user-data-dir={profile}", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout


def measured(page: Path, folder: Path, *flags: str) -> dict[int, dict]:
    """Return what the browser measures in the page at each width."""
    copy, around = folder / "measured.html", folder / "frames.html"
    copy.write_text(page.read_text().replace("</body>", MEASURE))
    frames = "".join(FRAME.format(page=copy.name, width=width) for width in WIDTHS)
    around.write_text(FRAMES.format(frames=frames, count=len(WIDTHS)))
    dom = chromium(around, folder, "--dump-dom", *WIDE, *flags)
    found = re.search(r"<body>(\[.*\])</body>", dom, re.DOTALL)
    assert found is not None, dom[:2000]
    return {each["width"]: each for each in json.loads(html.unescape(found[1]))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def page(make_results: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(make_results(tmp_path_factory.mktemp("results")))


@pytest.fixture(scope="module")
def light(page: Path, folder: Path) -> dict[int, dict]:
    return measured(page, folder, "--blink-settings=preferredColorScheme=1")


@pytest.fixture(scope="module")
def unfolded(page: Path, folder: Path) -> dict[int, dict]:
    """Measure a copy of the page in which everything is open."""
    copy = folder / "unfolded.html"
    copy.write_text(page.read_text().replace("<details>", "<details open>"))
    return measured(copy, folder, "--blink-settings=preferredColorScheme=1")


def test_the_page_never_scrolls_sideways(light: dict[int, dict]):
    assert set(light) == set(WIDTHS)
    for found in light.values():
        assert found["overflow"] == 0
        assert found["outside"] == []


def test_on_a_phone_wide_tables_scroll_inside_their_box(unfolded: dict[int, dict]):
    found = unfolded[390]
    wide = [box for box in found["boxes"] if box["hidden"] > 0]
    assert len(wide) >= 2  # the twelve columns of both artifacts' tables at the least
    assert all(box["style"] == "auto" for box in found["boxes"])
    assert all(box["focusable"] == 0 for box in found["boxes"])
    assert found["text"] >= 14


@pytest.mark.parametrize("width", [390, 1280])
def test_verdict_published_ours_and_error_are_in_sight(unfolded: dict[int, dict], width: int):
    rows = unfolded[width]["claims"]
    assert len(rows) == 3
    for row in rows:
        assert len(row) == 5
        assert all(0 <= left < right <= width and wide > 20 for left, right, wide in row[:4])


def test_the_first_figure_is_on_the_first_screen(light: dict[int, dict]):
    assert light[1280]["first"] < 900


@pytest.mark.parametrize("width", [390, 1280])
def test_figures_are_drawn_and_readable(light: dict[int, dict], width: int):
    drawings = light[width]["drawings"]
    assert len(drawings) == 2
    for drawing in drawings:
        assert drawing["width"] / drawing["height"] == pytest.approx(7 / 2.2, rel=0.02)
        assert drawing["width"] >= 440  # 7 inches wide: its 8 pt text stays legible
        assert drawing["clipped"] > 0


def test_a_dark_room_gets_a_dark_page_with_light_sheets_under_figures(
    light: dict[int, dict], page: Path, folder: Path
):
    def brightness(colour: str) -> float:
        return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3

    dark = measured(page, folder, "--blink-settings=preferredColorScheme=0")[1280]
    assert brightness(light[1280]["body"]) > 230
    assert brightness(dark["body"]) < 40
    assert brightness(dark["sheet"]) > 230


def test_the_browser_keeps_every_table_and_figure(page: Path, folder: Path):
    dom = chromium(page, folder, "--dump-dom")
    assert len(re.findall(r"<table\b", dom)) == 4
    assert len(re.findall(r"<figure\b", dom)) == 2
    assert len(re.findall(r"<svg\b[^>]*aria-label=", dom)) == 2
    assert "1 of 3 claims holds" in dom


def test_the_page_can_be_pictured(page: Path, folder: Path):
    picture = folder / "page.png"
    size = ("--window-size=1280,2000", "--hide-scrollbars")
    chromium(page, folder, f"--screenshot={picture}", *size)
    content = picture.read_bytes()
    assert struct.unpack(">II", content[16:24]) == (1280, 2000)
    assert len(content) > 50_000  # an empty page of this size takes some 10 kB


def after(page: Path, folder: Path, actions: str) -> list[str]:
    """Return what the script `actions` says of the page, in a browser."""
    copy = folder / "acted.html"
    script = f"<script>addEventListener('load', () => {{ {actions} }});</script></body>"
    copy.write_text(page.read_text().replace("</body>", script))
    found = re.search(r"<title>(.*?)</title>", chromium(copy, folder, "--dump-dom"), re.DOTALL)
    assert found is not None
    return html.unescape(found[1]).split("|")


SEEN = """
const seen = () => [...document.querySelectorAll("tbody tr:not(.group)")]
  .filter(row => row.checkVisibility()).map(row => row.id || "row").join();
const set = (name, value) => {
  const field = document.getElementById(name);
  field.value = value;
  field.dispatchEvent(new Event("input", {bubbles: true}));
};
"""


def test_a_search_opens_what_it_finds_and_hides_the_rest(page: Path, folder: Path):
    searched = 'set("words", "search STEPS"); const one = seen();'
    filtered = 'set("words", ""); set("of-verdict", "missing"); const two = seen();'
    cleared = 'set("of-verdict", ""); const three = seen();'
    told = 'document.title = [one, two, three, document.getElementById("found").value].join("|");'
    one, two, three, found = after(page, folder, SEEN + searched + filtered + cleared + told)
    assert one.split(",") == ["metis-quick-row1-count"]
    assert two.split(",") == ["metis-quick-lost"]
    assert {*three.split(",")} == {"metis-quick-off", "metis-quick-lost"}
    assert found == ""


def test_a_figure_is_enlarged_and_goes_back(page: Path, folder: Path):
    look = (
        'const wide = () => document.querySelector("figure svg").getBoundingClientRect().width;'
        'const button = document.querySelector("figure button"), before = wide();'
        "button.click(); const large = wide(); button.click();"
        'document.title = [before, large, wide()].join("|");'
    )
    before, large, back = map(float, after(page, folder, look))
    assert large > 1.5 * before
    assert back == before
