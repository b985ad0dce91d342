"""The files that an experiment is made from, known by what is in them.

A plan answers a question, and a finished point of a sweep one too; the same path with another
content behind it asks something else.
"""

from functools import lru_cache
from pathlib import Path

from common.files import digest
from helix.inputs.experiment import HERE, MEASURED, ROOFLINE, Experiment
from helix.inputs.profile import PARTS

MISSING = "missing"


def files_of(experiment: Experiment) -> dict[str, Path]:
    """Return the user's files that an experiment names, by their fields."""
    found = dict[str, Path]()
    config, source = experiment.model.config, experiment.profile.source
    if isinstance(config, str) and config and Path(config).exists():  # else a name of the catalogue
        path = Path(config)
        found["model.config"] = path / "config.json" if path.is_dir() else path
    if source not in (MEASURED, ROOFLINE, HERE):
        found |= {f"profile.source/{part}": Path(source, f"{part}.csv") for part in PARTS}
    if experiment.cluster.file:
        found["cluster.file"] = Path(experiment.cluster.file)
    if experiment.workload.trace:
        found["workload.trace"] = Path(experiment.workload.trace)
    return found


def contents(experiment: Experiment, *, workload: bool = True) -> dict[str, str]:
    """Return the SHA-256 of each of these files, MISSING where there is none, by field.

    Without the `workload`, of those alone that say what is placed where.
    """
    return {
        field: digest_of(path)
        for field, path in files_of(experiment).items()
        if workload or not field.startswith("workload.")
    }


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, MISSING where there is none.

    It is read again only where the file system says that it was written since.
    """
    if not path.is_file():
        return MISSING
    at = path.stat()
    return _digest(path.resolve(), (at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns))


@lru_cache(maxsize=64)
def _digest(path: Path, stamp: tuple[int, ...]) -> str:
    return digest(path)
