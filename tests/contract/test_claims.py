"""Every package's pages say what its claims.toml says."""

import re
from pathlib import Path

import pytest

from common.claims import load

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.parents[1].name for path in ROOT.glob("*/paper/claims.toml"))


@pytest.mark.parametrize("package", PACKAGES)
def test_the_page_of_claims_is_what_docs_would_write(package: str) -> None:
    claims = pytest.importorskip("docs.claims")  # an image has none
    assert (ROOT / package / "CLAIMS.md").read_text() == claims.page(package), "make docs"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_claim_s_row_says_what_is_expected_how_near_and_where_from(package: str) -> None:
    text = (ROOT / package / "CLAIMS.md").read_text()
    for claim in load(ROOT / package / "paper" / "claims.toml"):
        (row,) = [line for line in text.splitlines() if f"(`{claim.id}`)" in line]
        assert claim.text in row
        assert claim.source in row
        if claim.expected is not None:
            assert f"{claim.expected:,}" in row or f"{claim.expected}" in row
        assert ("at least" in row) == (claim.relation == ">=")
        assert ("at most" in row) == (claim.relation == "<=")


@pytest.mark.parametrize("package", PACKAGES)
def test_claims_have_ids_of_their_own_and_something_to_hold_against(package: str) -> None:
    claims = load(ROOT / package / "paper" / "claims.toml")
    assert claims
    assert len({claim.id for claim in claims}) == len(claims)
    for claim in claims:
        assert (claim.expected is None) != (claim.versus is None), claim.id


@pytest.mark.parametrize("package", PACKAGES)
def test_readmes_have_the_same_headings_two_figures_and_no_wall_of_rows(package: str) -> None:
    text = (ROOT / package / "README.md").read_text()
    headings = ("Paper", "Quick start", "Methods", "Claims", "Reading order", "Change one thing")
    for heading in headings:
        assert f"\n## {heading}\n" in text
    details = (ROOT / package / "DETAILS.md").read_text()
    headings = (
        "Full run",
        "What is simulated, measured, or carried over",
        "Differences from the original",
    )
    for heading in headings:
        assert f"\n## {heading}\n" in details
    figures = re.findall(r"!\[.+?\]\((docs/.+?\.svg)\)", text)
    assert len(figures) >= 2
    assert all((ROOT / package / path).is_file() for path in figures)
    assert "](CLAIMS.md)" in text
    rows = [len(block.splitlines()) for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)]
    assert max(rows) <= 40
