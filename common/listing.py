"""List the named experiments of a package with what is known of them: the verb `list`."""

import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec

from common.artifact import OWN, Artifact, Case, Folder
from common.record import latest
from common.report import claims_of


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A named experiment, the claims it serves and what its last records cost together."""

    name: str
    about: str
    suites: tuple[str, ...]
    claims: tuple[str, ...]
    hardware: str
    wall_s: float | None
    peak_rss: int | None  # bytes, of the largest


def listed(artifact: Artifact, out: Path) -> list[Listed]:
    """Return all named experiments."""
    by_suite: dict[str, list[Case]] = artifact.hook("suites", dict)()
    members = {s: {case.experiment.name for case in cases} for s, cases in by_suite.items()}
    folder, claims = Folder(out, artifact.name), claims_of(artifact)
    records = [r for s in (*members, OWN) for r in latest(folder.records(s).read())]
    rows, hardware = list[Listed](), artifact.hook("hardware", _cpu)
    for name, experiment in artifact.named().items():
        mine = [record for record in records if record.experiment == name]
        rows.append(
            Listed(
                name=name,
                about=experiment.about,
                suites=tuple(s for s, names in members.items() if name in names),
                claims=tuple(claim.id for claim in claims if claim.experiment == name),
                hardware=hardware(experiment),
                wall_s=sum(record.wall_s for record in mine) if mine else None,
                peak_rss=max(record.peak_rss for record in mine) if mine else None,
            )
        )
    return rows


def print_listed(rows: list[Listed]) -> None:
    """Print a line an experiment, names whole; on a terminal cut at its edge, elsewhere not."""
    cells = [(r.name, "+".join(r.suites), _counted(r), _cost(r), r.about) for r in rows]
    wide = [max(map(len, column)) for column in zip(*cells, strict=True)][:-1]
    edge = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for *row, about in cells:
        line = "  ".join((*(cell.ljust(w) for cell, w in zip(row, wide, strict=True)), about))
        print(line[: edge and max(edge, wide[0])].rstrip())


def _counted(row: Listed) -> str:
    return f"{len(row.claims)} claim{'s' * (len(row.claims) > 1)}" if row.claims else ""


def _cost(row: Listed) -> str:
    return f"{row.wall_s:.1f} s, {(row.peak_rss or 0) / 2**20:.0f} MiB" if row.wall_s else ""


def _cpu(experiment: Any) -> str:
    return "CPU"
