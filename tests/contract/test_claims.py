"""Every package's README and claims.toml say the same."""

from pathlib import Path

import pytest

from common.claims import load

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/claims.toml"))


def rows(package: str) -> dict[str, str]:
    text = (ROOT / package / "README.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return {line.split("|")[1].strip(): line for line in lines}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_claim_has_its_row_with_its_value(package: str) -> None:
    shown = rows(package)
    for claim in load(ROOT / package / "claims.toml"):
        assert claim.id in shown, f"{claim.id} is missing in {package}/README.md"
        assert claim.text in shown[claim.id]
        assert claim.source in shown[claim.id]
        if claim.expected is not None:
            assert f"| {claim.expected} " in shown[claim.id]
        target = "quick" if "quick" in claim.suites else "full"
        assert f"-{target}`" in shown[claim.id]


@pytest.mark.parametrize("package", PACKAGES)
def test_claims_have_ids_of_their_own_and_something_to_hold_against(package: str) -> None:
    claims = load(ROOT / package / "claims.toml")
    assert claims
    assert len({claim.id for claim in claims}) == len(claims)
    for claim in claims:
        assert (claim.expected is None) != (claim.versus is None), claim.id


@pytest.mark.parametrize("package", PACKAGES)
def test_readmes_have_the_same_headings(package: str) -> None:
    text = (ROOT / package / "README.md").read_text()
    for heading in (
        "Paper",
        "Quick start",
        "Claims",
        "Full run",
        "What is simulated, measured, or carried over",
        "Reading order",
        "Differences from the original",
        "Change one thing",
    ):
        assert f"\n## {heading}\n" in text
