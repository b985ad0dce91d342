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
from common.page import Figure, Own, Section, Table, render, write_section
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
        if self.open and self.open[-1] not in ("style", "script"):
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
    assert shown.count("table") == 2 + 2  # metis' claims that hold and that do not, a table of each
    assert shown.count("caption") == shown.count("table")
    assert "And why." in shown.text


def test_the_summary_counts_and_does_not_pass_the_missing(results: Path):
    shown = " ".join(page(results).text.split())
    assert "1 of 3 claims holds, 1 fails, 1 has no result and is not counted as holding." in shown
    assert "✗ 1 of 3 fail" in shown
    assert "✓ 3" not in shown


def test_what_does_not_hold_is_open_and_what_holds_is_folded(results: Path):
    text = render(results).read_text()
    for row, folds in (("off", 0), ("lost", 0), ("row1-count", 1)):
        before = text[: text.index(f'<tr id="metis-quick-{row}"')]
        assert before.count("<details") - before.count("</details>") == folds


def test_a_claim_leads_to_its_record_and_to_the_command_that_repeats_it(
    tmp_path: Path, make_record: Callable[..., Record], make_claim: Callable[..., Claim]
):
    record = make_record(files={"metis/plans/table1.json": "0" * 64})
    write_section(tmp_path, section(tuple(check([make_claim()], [record], "quick"))))
    shown = page(tmp_path)
    assert {"metis/quick.jsonl", "metis/plans/table1.json"} <= set(shown.values("href"))
    assert record.case_id in " ".join(shown.values("title"))
    assert "python -m metis quick --again --only table1" in shown.text


def test_ones_own_experiment_stands_before_the_papers(results: Path):
    own = Own(
        experiment="mine",
        about="Two machines.",
        command="python -m metis plan mine",
        tables=(Table(title="What came of it", columns=("", "plan"), rows=(("cost", 1.0),)),),
        figures=(Figure(title="My plan", svg="metis/figures/steps.svg", alt="My plan"),),
    )
    path = results / "metis" / "section.json"
    known = msgspec.json.decode(path.read_bytes(), type=Section)
    write_section(results, msgspec.structs.replace(known, own=(own,), number="Forty-two."))
    text = page(results).text
    said = ("Yours: mine", "My plan.", "What it does.", "Forty-two.", "Steps of metis.")
    places = [text.index(words) for words in said]
    assert places == sorted(places)
    assert places[-1] < text.rindex("The helix artifact")  # which has none of one's own


def test_a_table_stands_under_its_figure(results: Path):
    path = results / "metis" / "section.json"
    known = msgspec.json.decode(path.read_bytes(), type=Section)
    tables = tuple(msgspec.structs.replace(t, under="Second") for t in known.tables)
    figures = (*known.figures, msgspec.structs.replace(known.figures[0], title="Second"))
    other = Table(title="Of none", columns=("a",), rows=((1,),))
    changed = msgspec.structs.replace(known, tables=(other, *tables), figures=figures)
    write_section(results, changed)
    text = page(results).text
    assert text.index("Second.") < text.rindex("All rows") < text.rindex("Of none")


def test_minus_nought_is_never_shown(
    tmp_path: Path, make_record: Callable[..., Record], make_claim: Callable[..., Claim]
):
    rows = ((-0.0, 0.0, -1.5),)
    claims = tuple(check([make_claim(expected=0)], [make_record(steps=-0.0)], "quick"))
    write_section(
        tmp_path, section(claims, tables=(Table(title="t", columns=("a", "b", "c"), rows=rows),))
    )
    text = render(tmp_path).read_text()
    assert "-1.5" in text
    assert re.findall(r">\s*-0\b(?!\.)", text) == []


def section(verdicts: object = (), **fields: object) -> Section:
    return Section(artifact="metis", title="Metis", verdicts=verdicts, **fields)  # type: ignore[arg-type]


def test_all_claims_holding_is_said_so(
    tmp_path: Path, make_record: Callable[..., Record], make_claim: Callable[..., Claim]
):
    claims = [make_claim(id="a"), make_claim(id="b")]
    write_section(tmp_path, section(tuple(check(claims, [make_record()], "quick"))))
    shown = page(tmp_path).text
    assert "All 2 claims checked here hold." in shown
    assert "✓ 2" in shown


def test_missing_claims_alone_make_an_artifact_incomplete(
    tmp_path: Path, make_record: Callable[..., Record], make_claim: Callable[..., Claim]
):
    write_section(tmp_path, section(tuple(check([make_claim()], [], "quick"))))
    assert "? 1 of 1 missing" in page(tmp_path).text


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
    row = re.search(r'<tr id="metis-quick-off".*?</tr>', text, re.DOTALL)
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


def test_one_file_that_loads_nothing_and_whose_links_lead_to_its_folder(results: Path):
    text = render(results).read_text()
    shown = Page(text)
    assert shown.count("link") == shown.count("img") == 0
    assert shown.count("script") == 1
    assert not [name for _, a in shown.tags for name in a if name.startswith("on")]
    for value in shown.values("href", "xlink:href"):
        assert re.match(r"#|[\w-]+/", value), value
    assert shown.values("src", "srcset", "data", "action") == []
    assert shown.count("metadata") == 0  # of the drawings; it names outside addresses
    assert "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\((.*?)\)", text))


def test_ids_are_unique_and_every_reference_has_its_target(results: Path):
    text = render(results).read_text()
    shown = Page(text)
    ids = shown.values("id")
    assert [name for name, times in Counter(ids).items() if times > 1] == []
    targets = [v[1:] for v in shown.values("href", "xlink:href") if v.startswith("#")]
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
    assert set(scopes) == {"row", "col", "rowgroup"}
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


@pytest.mark.parametrize("content", ['{"artifact": "metis"}\n', "3\n", "{\n}\n"])
def test_a_section_of_another_shape_is_told_by_its_file(results: Path, content: str):
    (results / "metis" / "section.json").write_text(content)
    with pytest.raises(InputError, match=r"metis/section\.json: not a section of ours"):
        render(results)


@pytest.mark.parametrize("content", [b"", b'{"artifact": ', b"\xff\x00"])
def test_a_broken_section_is_left_out_with_a_warning(
    results: Path, content: bytes, caplog: pytest.LogCaptureFixture
):
    (results / "metis" / "section.json").write_bytes(content)
    shown = page(results).text
    assert "The helix artifact" in shown
    assert "The metis artifact" not in shown
    assert "metis/section.json" in caplog.text


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
