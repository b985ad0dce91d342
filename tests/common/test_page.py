"""The report page: whole, self-contained, honest about what fails or is missing."""

import json
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from common.claims import Claim, check
from common.errors import InputError
from common.page import Figure, Section, Table, render, write_section
from common.record import Record

pytest.importorskip("jinja2")

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Every tag with its attributes, the ids, the text; ill-nested tags are an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data

    def count(self, wanted: str) -> int:
        return sum(tag == wanted for tag, _ in self.tags)

    def values(self, *names: str) -> list[str]:
        return [a[n] or "" for _, a in self.tags for n in names if n in a]


def page(out: Path) -> Page:
    return Page(render(out).read_text())


def test_the_page_shows_every_artifact_with_its_tables_and_figures(results: Path):
    shown = page(results)
    for artifact in ("helix", "metis"):
        assert f"The {artifact} artifact" in shown.text
        assert artifact in shown.values("id")
        assert f'Three "bars" of {artifact}' in shown.values("aria-label")
    assert shown.count("svg") == 2
    assert shown.count("figcaption") == 2
    assert shown.count("table") == 1 + 1 + 2  # summary, metis' claims, a table of each
    assert shown.count("caption") == shown.count("table")
    assert "And why." in shown.text


def test_the_summary_counts_and_does_not_pass_the_missing(results: Path):
    shown = " ".join(page(results).text.split())
    assert "1 of 3 claims holds, 1 fails, 1 has no result and is not counted as holding." in shown
    for words in ("Artifacts2", "Claims checked3", "✓ Passed1", "✗ Failed1", "? Missing1"):
        assert words in shown.replace(f" {words[-1]}", words[-1])
    assert "✗ some fail" in shown
    assert "all pass" not in shown


def section(verdicts: object = (), **fields: object) -> Section:
    return Section(artifact="metis", title="Metis", verdicts=verdicts, **fields)  # type: ignore[arg-type]


def test_all_claims_holding_is_said_so(
    tmp_path: Path, make_record: Callable[..., Record], make_claim: Callable[..., Claim]
):
    claims = [make_claim(id="a"), make_claim(id="b")]
    write_section(tmp_path, section(tuple(check(claims, [make_record()], "quick"))))
    shown = page(tmp_path).text
    assert "All 2 claims checked here hold." in shown
    assert "✓ all pass" in shown


def test_missing_claims_alone_make_an_artifact_incomplete(
    tmp_path: Path, make_record: Callable[..., Record], make_claim: Callable[..., Claim]
):
    write_section(tmp_path, section(tuple(check([make_claim()], [], "quick"))))
    assert "? incomplete" in page(tmp_path).text


def test_no_claims_and_no_sections_are_said_so(tmp_path: Path):
    shown = page(tmp_path).text
    assert "No claim has been checked yet." in shown
    assert "No artifact has written a section" in shown
    write_section(tmp_path, section())
    assert "no claims" in page(tmp_path).text


@pytest.mark.parametrize(
    ("ids", "mixed"),
    [
        ((), False),
        (("cafe0000-1111", "cafe0000-2222"), False),
        (("cafe0000-1111", "beef0000-1111", "beef0000-2222"), True),
    ],
)
def test_results_of_unlike_machines_are_not_mixed_silently(
    tmp_path: Path, ids: tuple[str, ...], mixed: bool
):
    write_section(tmp_path, section(provenance=ids))
    shown = " ".join(page(tmp_path).text.split())
    assert ("Results of 2 machines stand together here (cafe0000, beef0000;" in shown) == mixed
    assert ("stand together" in shown) == mixed


def test_published_stands_beside_ours(results: Path):
    text = render(results).read_text()
    row = re.search(r'<tr id="metis-quick-off">.*?</tr>', text, re.DOTALL)
    assert row is not None
    cells = [re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<td.*?</td>", row[0])]
    assert cells == ["✗ fail", "600", "612", "+2 %", "±1 %", "planned", "Table 1"]


def test_what_is_written_by_hand_is_escaped(results: Path):
    text = render(results).read_text()
    assert "A cost &lt;that&gt; differs &amp; fails" in text
    assert "x&lt;y" in text


def test_numbers_in_tables_have_sensible_digits(results: Path):
    shown = page(results).text
    assert "1,714,619" in shown
    assert "0.0123457" in shown
    assert "98,765.4" in shown


def test_one_file_without_script_or_network(results: Path):
    text = render(results).read_text()
    shown = Page(text)
    assert shown.count("script") == shown.count("link") == shown.count("img") == 0
    assert not [name for _, a in shown.tags for name in a if name.startswith("on")]
    assert all(value.startswith("#") for value in shown.values("href", "xlink:href"))
    assert shown.values("src", "srcset", "data", "action") == []
    assert shown.count("metadata") == 0  # of the drawings; it names outside addresses
    assert "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\((.*?)\)", text))


def test_ids_are_unique_and_every_reference_has_its_target(results: Path):
    text = render(results).read_text()
    shown = Page(text)
    ids = shown.values("id")
    assert [name for name, times in Counter(ids).items() if times > 1] == []
    targets = [v[1:] for v in shown.values("href", "xlink:href")]
    targets += re.findall(r"url\(#(.*?)\)", text)
    targets += shown.values("aria-labelledby")
    assert len(targets) > 20  # clip paths, markers and hatches of the figures among them
    assert set(targets) <= set(ids)


def test_a_script_in_a_drawing_is_left_out(tmp_path: Path):
    svg = '<?xml version="1.0"?><svg viewBox="0 0 1 1"><script>alert(1)</script><g id="a"/></svg>'
    (tmp_path / "x.svg").write_text(svg)
    write_section(tmp_path, section(figures=(Figure(title="X", svg="x.svg", alt="x"),)))
    text = render(tmp_path).read_text()
    assert "alert" not in text
    assert "<?xml" not in text
    assert 'id="metis-figure1-a"' in text


def test_headings_and_tables_are_semantic(results: Path):
    shown = page(results)
    levels = [int(tag[1]) for tag, _ in shown.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[:2] == [1, 2]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    scopes = [attrs.get("scope") for tag, attrs in shown.tags if tag == "th"]
    assert set(scopes) == {"row", "col"}
    html = next(attrs for tag, attrs in shown.tags if tag == "html")
    assert html["lang"] == "en"
    assert shown.count("main") == shown.count("nav") == 1


def test_provenance_is_told_and_its_loss_too(results: Path):
    shown = page(results).text
    assert "not installed" in shown
    assert "GiB" in shown
    assert "Facts lost" in shown
    assert "gone-gone" in shown


def test_claims_json_lists_every_verdict(results: Path):
    render(results)
    claims = json.loads((results / "claims.json").read_text())
    assert [claim["verdict"] for claim in claims] == ["pass", "fail", "missing"]
    assert claims[1] == {
        "artifact": "metis",
        "id": "off",
        "suite": "quick",
        "expected": 600,
        "value": 612,
        "unit": "1",
        "error": 0.02,
        "tolerance": 0.01,
        "verdict": "fail",
        "origin": "planned",
    }


def test_a_section_is_read_back_as_written(results: Path):
    path = results / "metis" / "section.json"
    read = msgspec.json.decode(path.read_bytes(), type=Section)
    assert write_section(results, read) == path
    assert msgspec.json.decode(path.read_bytes(), type=Section) == read
    assert isinstance(read.tables[0], Table)


def test_a_later_section_replaces_the_earlier(results: Path):
    write_section(results, section(intro="Only this."))
    shown = page(results).text
    assert "Only this." in shown
    assert "The metis artifact" not in shown
    assert "The helix artifact" in shown


@pytest.mark.parametrize("content", ['{"artifact": "metis"}\n', "3\n", "{}\n{}\n", "{\n}\n"])
def test_a_section_of_another_shape_is_told_by_its_file(results: Path, content: str):
    (results / "metis" / "section.json").write_text(content)
    with pytest.raises(InputError, match=r"metis/section\.json: not lines of ours"):
        render(results)


@pytest.mark.parametrize("content", [b"", b'{"artifact": ', b"\xff\x00"])
def test_a_broken_section_is_left_out_with_a_warning(
    results: Path, content: bytes, caplog: pytest.LogCaptureFixture
):
    (results / "metis" / "section.json").write_bytes(content)
    shown = page(results).text
    assert "The helix artifact" in shown
    assert "The metis artifact" not in shown
    assert ("metis/section.json" in caplog.text) == bool(content)


def test_a_missing_drawing_is_told_by_its_path(results: Path):
    (results / "metis" / "figures" / "steps.svg").unlink()
    with pytest.raises(FileNotFoundError) as error:
        render(results)
    assert error.value.filename == str(results / "metis" / "figures" / "steps.svg")


def test_a_failed_rendering_leaves_the_old_page(results: Path):
    before = render(results).read_text()
    (results / "metis" / "figures" / "steps.svg").unlink()
    with pytest.raises(FileNotFoundError):
        render(results)
    assert (results / "report.html").read_text() == before
    assert not list(results.rglob("*.part"))
