"""Bring the figures that the READMEs show from a results folder that `make quick` has filled."""

import os
import shutil
import sys
from pathlib import Path

from docs.claims import ROOT

FIGURES = {
    "helix": ("systems-single", "deep-dives"),
    "metis": ("times", "table1-row1-strict.optimal.pipeline"),
    "beta": ("ablation", "fidelity"),
    "puzzle": ("figure-8", "figure-10"),
    "vocab_parallel": ("mfu-4096", "memory-per-rank"),
}


def main() -> None:
    """Copy each figure that is there; say which are not."""
    results = Path(os.environ.get("RESULTS") or ROOT / "results")
    for package, names in FIGURES.items():
        for name in names:
            source, target = results / package / "figures" / f"{name}.svg", ROOT / package / "docs"
            if source.is_file():
                shutil.copy(source, target)
            else:
                print(f"{source} is not there; {target}/{name}.svg stays", file=sys.stderr)


if __name__ == "__main__":
    main()
