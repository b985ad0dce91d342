"""Draw every figure in one style: the size and type of a paper, one look per method."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# No dots among them: a single drawing of those takes 250 kB.
_HATCHES = ("", "///", "xxx", "---", "+++", "|||", "\\\\\\", "//--", "xx++", "||//")


@contextmanager
def style() -> Generator[None]:
    """Draw in the style of paper.mplstyle inside this context."""
    from matplotlib import style

    with style.context(Path(__file__).with_name("paper.mplstyle")):
        yield


def save(fig: "Figure", stem: Path) -> tuple[Path, Path]:
    """Write `<stem>.svg` and `<stem>.png`, the same bytes for the same drawing."""
    svg, png = Path(f"{stem}.svg"), Path(f"{stem}.png")
    svg.parent.mkdir(parents=True, exist_ok=True)
    with style():
        for path, stamp in ((svg, "Date"), (png, "Software")):
            fig.savefig(path, metadata={stamp: None})  # pyright: ignore[reportUnknownMemberType]
    return svg, png


def method_style(i: int) -> dict[str, str]:
    """Return the colour (the style's i-th) and hatch of a method's bars, the same everywhere."""
    from matplotlib import color_sequences, colors

    return {"color": colors.to_hex(color_sequences["petroff10"][i % 10]), "hatch": _HATCHES[i % 10]}
