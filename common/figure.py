"""Draw every figure in one style: the size and type of a paper, one look per method."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from common.files import writing

# No dots among them: a single drawing of those takes 250 kB.
_HATCHES = ("", "///", "xxx", "---", "+++", "|||", "\\\\\\", "//--", "xx++", "||//")


def style() -> AbstractContextManager[None]:
    """Return the context inside which drawings have the style of paper.mplstyle."""
    from matplotlib import style

    return style.context(Path(__file__).with_name("paper.mplstyle"))


def save(fig: Any, stem: Path) -> tuple[Path, Path]:
    """Write a matplotlib Figure as `<stem>.svg` and `.png`, the same bytes for the same drawing."""
    svg, png = Path(f"{stem}.svg"), Path(f"{stem}.png")
    for path, stamp in ((svg, "Date"), (png, "Software")):
        with style(), writing(path) as beside:
            fig.savefig(beside, metadata={stamp: None})
    return svg, png


def method_style(i: int) -> dict[str, str]:
    """Return the colour (the style's i-th) and hatch of a method's bars, the same everywhere."""
    from matplotlib import color_sequences, colors

    return {"color": colors.to_hex(color_sequences["petroff10"][i % 10]), "hatch": _HATCHES[i % 10]}
