"""Write each package's CLAIMS.md from its claims.toml: what is claimed, how near, by what."""

from pathlib import Path

from common.claims import Claim, load

ROOT = Path(__file__).parents[1]
PACKAGES = ("helix", "metis", "beta", "puzzle", "vocab_parallel")
HEAD = """# What {package} claims

Made by `make docs` from [`paper/claims.toml`](paper/claims.toml); do not edit. The suites check
each claim against their records and exit with 1 where one does not hold. Tolerances are relative;
exact means to the last printed digit. "Planned" is computed by a planner, "simulated" by a
simulator, "measured" by real processes, "paper" is carried over.

"""
RELATION = {"=": "", ">=": "at least ", "<=": "at most "}


def page(package: str) -> str:
    """Return the page's text: a table for each experiment that has claims."""
    claims = load(ROOT / package / "paper" / "claims.toml")
    blocks = list[str]()
    for experiment in dict.fromkeys(claim.experiment for claim in claims):
        mine = [claim for claim in claims if claim.experiment == experiment]
        lines = [
            f"## {experiment}",
            "",
            f"`{_command(package, mine[0])}`",
            "",
            "| claim | expected | tolerance | origin | source |",
            "| --- | --- | --- | --- | --- |",
            *(_row(claim) for claim in mine),
        ]
        blocks.append("\n".join(lines))
    return HEAD.format(package=package) + "\n\n".join(blocks) + "\n"


def _command(package: str, claim: Claim) -> str:
    suite = "quick" if "quick" in claim.suites else "full"
    return f"python -m {package} {suite} --only {claim.experiment}"


def _row(claim: Claim) -> str:
    if claim.versus is None:
        wanted = f"{claim.expected:,}" if isinstance(claim.expected, int) else f"{claim.expected}"
    else:
        case = ", ".join(f"{key} {value}" for key, value in claim.versus.case.items())
        times = "" if claim.factor == 1 else f"{claim.factor:g} x "
        wanted = f"{times}{claim.versus.metric} of {claim.versus.experiment}"
        wanted += f" ({case})" if case else ""
    unit = "" if claim.unit == "1" else f" {claim.unit.replace('By', 'B')}"
    near = f"{100 * claim.tolerance:.3g} %" if claim.tolerance else "exact"
    cells = (
        f"{claim.text} (`{claim.id}`)",
        f"{RELATION[claim.relation]}{wanted}{unit}",
        near if claim.relation == "=" or claim.tolerance else "",
        claim.origin,
        claim.source,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main() -> None:
    """Write the pages."""
    for package in PACKAGES:
        (ROOT / package / "CLAIMS.md").write_text(page(package), encoding="utf-8")


if __name__ == "__main__":
    main()
