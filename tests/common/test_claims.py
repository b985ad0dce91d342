"""A claim passes only by a record of its own suite, case, origin, metric and unit."""

import io
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from common.claims import COLUMNS, Claim, Verdict, cells, check, load, number, table
from common.errors import InputError
from common.record import Metric, Record

Make = Callable[..., Record]
MakeClaim = Callable[..., Claim]

TOML = """
[[claim]]
id = "count"
text = "Row 1: search steps"
source = "Table 1"
suites = ["quick", "full"]
experiment = "table1"
case = { row = 1 }
metric = "search.steps"
unit = "1"
origin = "planned"
expected = 612

[[claim]]
id = "faster"
text = "Twice as fast"
source = "Figure 5"
suites = ["full"]
experiment = "serve"
metric = "decode.throughput"
unit = "tok/s"
origin = "simulated"
versus = { experiment = "serve", case = { method = "swarm" }, metric = "decode.throughput" }
relation = ">="
factor = 2
"""


def judged(claim: Claim, *records: Record, suite: str = "quick") -> Verdict:
    (verdict,) = check([claim], records, suite)
    return verdict


def test_claims_are_loaded_as_written(tmp_path: Path):
    (tmp_path / "claims.toml").write_text(TOML)
    count, faster = load(tmp_path / "claims.toml")
    assert (count.expected, count.tolerance, count.relation) == (612, 0, "=")
    assert faster.versus is not None
    assert faster.versus.case == {"method": "swarm"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "expected = 612",
            "expcted = 612",
            ": *.0: Object contains unknown field `expcted`; did you mean expected?",
        ),
        (
            'origin = "planned"',
            'origin = "plan"',
            "origin: Invalid enum value 'plan'; did you mean",
        ),
        (
            'relation = ">="',
            'relation = ">"',
            ": *.1.relation: Invalid enum value '>'; did you mean",
        ),
        ("case = { method", "case = { x = [], method", "case"),
        ("[[claim]]", "[[claims]]", "Invalid enum value 'claims'; did you mean"),
    ],
)
def test_a_malformed_claim_file_is_told(tmp_path: Path, old: str, new: str, said: str):
    path = tmp_path / "claims.toml"
    path.write_text(TOML.replace(old, new))
    with pytest.raises(InputError) as error:
        load(path)
    assert str(path) in str(error.value)
    assert said in str(error.value)


def test_no_claims_are_none(tmp_path: Path):
    (tmp_path / "claims.toml").touch()
    assert load(tmp_path / "claims.toml") == ()


def test_an_exact_claim_passes_by_equality_only(make_record: Make, make_claim: MakeClaim):
    assert judged(make_claim(), make_record(612)).verdict == "pass"
    assert judged(make_claim(), make_record(613)).verdict == "fail"
    assert judged(make_claim(), make_record(612.0000001)).verdict == "fail"


@pytest.mark.parametrize(
    ("value", "verdict"), [(99, "pass"), (101, "pass"), (98.9, "fail"), (101.1, "fail")]
)
def test_a_tolerance_is_relative_and_two_sided(
    make_record: Make, make_claim: MakeClaim, value: float, verdict: str
):
    found = judged(make_claim(expected=100, tolerance=0.01), make_record(value))
    assert found.verdict == verdict
    assert found.error == pytest.approx((value - 100) / 100)


@pytest.mark.parametrize(
    ("relation", "value", "verdict"),
    [
        (">=", 99, "fail"),
        (">=", 100, "pass"),
        (">=", 500, "pass"),
        ("<=", 101, "fail"),
        ("<=", 100, "pass"),
        ("<=", -5, "pass"),
    ],
)
def test_a_bound_holds_on_its_side(
    make_record: Make, make_claim: MakeClaim, relation: str, value: float, verdict: str
):
    claim = make_claim(expected=100, relation=relation)
    assert judged(claim, make_record(value)).verdict == verdict


def test_a_negative_or_zero_expectation_is_judged_too(make_record: Make, make_claim: MakeClaim):
    negative = make_claim(expected=-100, tolerance=0.01)
    assert judged(negative, make_record(-99)).verdict == "pass"
    assert judged(negative, make_record(-98)).verdict == "fail"
    assert judged(negative, make_record(100)).verdict == "fail"
    above = make_claim(expected=-100, relation=">=")
    assert judged(above, make_record(-99)).verdict == "pass"
    assert judged(above, make_record(-101)).verdict == "fail"
    zero = make_claim(expected=0, tolerance=0.5)
    assert judged(zero, make_record(0.5)).verdict == "pass"
    assert judged(zero, make_record(0.6)).verdict == "fail"


@pytest.mark.parametrize(
    "change",
    [
        {"suite": "own"},
        {"experiment": "another"},
        {"origin": "simulated"},
        {"case": {"row": 2, "method": "metis"}},
        {"case": {"method": "metis"}},
        {"status": "failed"},
        {"metrics": ()},
        {"metrics": (Metric(name="search.time", value=612, unit="1"),)},
        {"metrics": (Metric(name="search.steps", value=612, unit="s"),)},
    ],
)
def test_a_record_of_anything_else_leaves_the_claim_missing(
    make_record: Make, make_claim: MakeClaim, change: dict[str, object]
):
    verdict = judged(make_claim(), make_record(**change))
    assert (verdict.verdict, verdict.value, verdict.error) == ("missing", None, None)


def test_more_axes_than_the_claim_names_do_not_matter(make_record: Make, make_claim: MakeClaim):
    assert judged(make_claim(case={"row": 1}), make_record()).verdict == "pass"


def test_the_last_record_of_a_case_decides(make_record: Make, make_claim: MakeClaim):
    assert judged(make_claim(), make_record(1), make_record(612)).verdict == "pass"
    assert judged(make_claim(), make_record(612), make_record(1)).verdict == "fail"


def test_a_failed_repetition_takes_the_earlier_pass_back(make_record: Make, make_claim: MakeClaim):
    found = judged(make_claim(), make_record(612), make_record(612, status="failed"))
    assert found.verdict == "missing"


def test_only_claims_of_the_suite_are_judged(make_record: Make, make_claim: MakeClaim):
    claims = [make_claim(id="a"), make_claim(id="b", suites=("full",)), make_claim(id="c")]
    assert [v.id for v in check(claims, [make_record()], "quick")] == ["a", "c"]
    assert [v.verdict for v in check(claims, [make_record()], "full")] == ["missing"]


def versus(make_claim: MakeClaim, **fields: object) -> Claim:
    other = {"experiment": "table1", "metric": "search.steps", "case": {"method": "stratified"}}
    return make_claim(
        versus=msgspec.convert(other, Claim.__base__), case={"method": "metis"}, **fields
    )


def test_a_relation_compares_two_cases(make_record: Make, make_claim: MakeClaim):
    ours = make_record(300, case={"method": "metis"})
    theirs = make_record(100, case={"method": "stratified"})
    found = judged(versus(make_claim, relation=">=", factor=2), ours, theirs)
    assert (found.verdict, found.expected, found.value) == ("pass", 200, 300)
    assert found.error == pytest.approx(0.5)
    assert judged(versus(make_claim, relation=">=", factor=4), ours, theirs).verdict == "fail"
    assert judged(versus(make_claim, relation="<=", factor=3), ours, theirs).verdict == "pass"
    assert judged(versus(make_claim, factor=3), ours, theirs).verdict == "pass"


@pytest.mark.parametrize("method", ["metis", "stratified"])
def test_a_relation_with_one_side_is_missing(make_record: Make, make_claim: MakeClaim, method: str):
    claim = versus(make_claim, relation=">=")
    assert judged(claim, make_record(case={"method": method})).verdict == "missing"


def test_a_relation_across_machines_is_refused_with_the_reason(
    make_record: Make, make_claim: MakeClaim
):
    ours = make_record(300, case={"method": "metis"})
    theirs = make_record(100, case={"method": "stratified"}, provenance="beef0000-1")
    found = judged(versus(make_claim, relation=">="), ours, theirs)
    assert found.verdict == "missing"
    assert "beef0000" in found.note
    assert "cafe0000" in found.note


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1714619, "1,714,619"),
        (8.169934640522875, "8.16993"),
        (1898.3743157594101, "1,898.37"),
        (0.1, "0.1"),
        (2.0, "2"),
        (1.5e-9, "1.5e-09"),
        (-0.25, "-0.25"),
        (None, "-"),
        (True, "True"),
        ("16 + 16", "16 + 16"),
    ],
)
def test_numbers_are_shown_with_the_digits_that_count(value: object, shown: str):
    assert number(value) == shown


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_shown_number_is_right_to_six_digits(value: float):
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=1e-5)


def test_cells_tell_published_ours_and_error_with_units(make_record: Make, make_claim: MakeClaim):
    metric = Metric(name="cost", value=1.02, unit="s")
    claim = make_claim(metric="cost", unit="s", expected=1.0, tolerance=0.01)
    row = dict(zip(COLUMNS, cells(judged(claim, make_record(metrics=(metric,)))), strict=True))
    assert row == {
        "claim": "Row 1: search steps",
        "verdict": "fail",
        "published": "1 s",
        "ours": "1.02 s",
        "error": "+2 %",
        "tolerance": "±1 %",
        "origin": "planned",
        "source": "Table 1",
    }


def test_cells_of_bounds_exact_and_missing_claims(make_record: Make, make_claim: MakeClaim):
    def row(claim: Claim, *records: Record) -> dict[str, str]:
        return dict(zip(COLUMNS, cells(judged(claim, *records)), strict=True))

    exact = row(make_claim(), make_record())
    assert (exact["published"], exact["error"], exact["tolerance"]) == ("612", "0", "exact")
    assert row(make_claim(relation=">="), make_record())["published"] == "≥ 612"
    missing = row(make_claim(unit="s"))
    assert (missing["published"], missing["ours"], missing["error"]) == ("612 s", "-", "-")


def test_the_terminal_table_keeps_numbers_whole_in_80_columns(
    make_record: Make, make_claim: MakeClaim
):
    claims = [
        make_claim(id="table1-row4-printed-stratified-count", expected=1553492, tolerance=0.001),
        make_claim(id="lost", experiment="none"),
    ]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table(check(claims, [make_record()], "quick")))
    shown = console.export_text()
    lines = [line.split() for line in shown.splitlines()]
    assert lines[0] == ["id", "verdict", "published", "ours", "error"]
    assert lines[1][-5:] == ["fail", "1,553,492", "612", "-100", "%"]
    assert "".join(line[0] for line in lines[1:-1]) == "table1-row4-printed-stratified-count"
    assert lines[-1] == ["lost", "missing", "612", "-", "-"]
