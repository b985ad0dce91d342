"""The suites `quick` and `full`: which figures they do, and how a user asks for others."""

from collections.abc import Sequence

import msgspec

from beta.paper.grid import points
from beta.paper.section3 import OVERHEADS
from beta.paper.sweeps import grids
from common.artifact import Case
from common.case import resolve
from common.errors import InputError
from common.spread import cores
from common.suites import How

QUICK = ("ablation", "ablation-same", "large", "fidelity", "s1-maf1", "serve")
QUICK_SWEEPS = {"ablation-same": ("rate", "cv")}
"""Figures of which the quick suite does some sweeps only."""
OVERHEAD = tuple(f"fig7b-{overhead}" for overhead in OVERHEADS)
MOTIVATION = (
    *("fig2-even", "fig2-uneven", "fig2-bursty"),
    *("fig4", "fig5", "fig6", "fig7"),
    *OVERHEAD,
)
ROBUST = ("robust-1", "robust-2", "robust-3")
BEYOND = tuple(f"beyond-{name}{kind}" for name in ("s1", "s2", "s3") for kind in ("", "-deadline"))
DRIFT = ("drift", "drift-static")
FULL = (
    *QUICK,
    *("ablation-same-bert", "s2-maf1", "s3-maf1", "s1-maf2"),
    *MOTIVATION,
    *ROBUST,
    *BEYOND,
    *DRIFT,
    "serve-delay",
)
SERVED = ("serve", "serve-delay")

SUITES: dict[str, tuple[str, ...]] = {"quick": QUICK, "full": FULL}
"""The figures of each suite."""


class SuiteSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a suite is done: `quick --set processes=4`."""

    figures: str = ""
    """Names of experiments, by commas, to do instead of the suite's own."""
    processes: int = 0
    """0: one per core."""
    ray: str = ""
    """Address of a Ray cluster to do the cases on, such as auto or host:6379; empty: none."""

    def __post_init__(self) -> None:
        """Refuse fewer than no processes."""
        if self.processes < 0:
            raise InputError(f"processes is {self.processes}, expected 0 (one per core) or more")

    def chosen(self) -> tuple[str, ...]:
        """Return the figures by name, checked."""
        names = tuple(name.strip() for name in self.figures.split(",") if name.strip())
        unknown = [name for name in names if name not in grids()]
        if unknown:
            raise InputError(f"no figure {', '.join(unknown)}; there are {', '.join(grids())}")
        return names


def how(suite: str, overrides: Sequence[str]) -> How:
    """Return how a suite, or the figures asked for in its place, is done."""
    settings = resolve(suite, {suite: SuiteSettings()}, SuiteSettings, overrides)
    chosen = settings.chosen()
    return How(
        cases=tuple(suite_cases(suite, chosen)),
        processes=settings.processes or cores(),
        ray=settings.ray,
        point="point",
        before="warm",
        claims=chosen,
    )


def suites() -> dict[str, list[Case]]:
    """Return the cases of each suite."""
    return {suite: suite_cases(suite) for suite in SUITES}


def suite_cases(suite: str, figures: tuple[str, ...] = ()) -> list[Case]:
    """Return the cases of a suite, or of the given figures."""
    only = QUICK_SWEEPS if suite == "quick" and not figures else {}
    return [
        case
        for name in figures or SUITES[suite]
        for case in points(grids()[name])
        if name not in only or case.marks["sweep"] in only[name]
    ]
