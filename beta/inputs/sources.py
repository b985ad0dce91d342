"""The files that an experiment is made from, known by what is in them.

A plan answers a question; the same path with another log or profile behind it is another question.
"""

from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from beta.inputs.azure import files_2019
from beta.inputs.experiment import MACHINE, V100, Experiment
from beta.inputs.profile import SHIPPED
from common.files import digest

MISSING = "missing"


def profile_file(experiment: Experiment) -> Path | None:
    """Return the file of the profiles; None for this machine's before they are measured."""
    if experiment.profile == MACHINE:
        return None
    return SHIPPED if experiment.profile == V100 else Path(experiment.profile)


def config_files(experiment: Experiment) -> list[Path]:
    """Return the files that models are described by; a name of the catalogue has none."""
    given = [Path(entry.config) for entry in experiment.models if entry.config]
    given += [Path(shape.folder) for shape in experiment.shapes.values() if shape.folder]
    found = [path / "config.json" if path.is_dir() else path for path in given]
    return [path for path in found if path.is_file()]


def traffic_files(experiment: Experiment) -> list[Path]:
    """Return the files of the traffic; none where it is drawn or replayed from a stand-in."""
    traffic, training = experiment.traffic, experiment.training
    if not traffic.path or not (traffic.is_trace or traffic.source == "requests"):
        return []
    path = Path(traffic.path)
    if traffic.source != "azure2019":
        return [path]
    ends = [traffic.end, *([training.end] if training.on == "slice" else [])]
    return max((files_2019(path, end) for end in ends), key=len)


def traffic_digest(experiment: Experiment) -> str:
    """Return what identifies the content of the traffic's files; empty where it has none."""
    found = [digest_of(path) for path in traffic_files(experiment)]
    return sha256(" ".join(found).encode()).hexdigest() if found else ""


def digest_of(path: Path | None) -> str:
    """Return the SHA-256 of a file's content, MISSING where there is none.

    It is read again only where the file system says that it was written since.
    """
    if path is None or not path.is_file():
        return MISSING
    at = path.stat()
    stamp = (at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns)
    return _digest(path.resolve(), stamp)


@lru_cache(maxsize=64)
def _digest(path: Path, stamp: tuple[int, ...]) -> str:
    return digest(path)
