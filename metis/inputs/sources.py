"""The files that an experiment is made from, known by what is in them.

A plan answers a question; the same path with another profile or config behind it is another one.
"""

from pathlib import Path

import msgspec

from common.files import digest
from metis.inputs.experiment import ANALYTIC, AUTO, MEASURE, SYNTHETIC, Experiment

CONFIG = "config.json"


def profile_folder(experiment: Experiment) -> Path | None:
    """Return the folder of the user's profiles; None where they are made or measured here."""
    source = experiment.profile.source
    return None if source in (AUTO, SYNTHETIC, ANALYTIC, MEASURE) else Path(source)


def config_file(experiment: Experiment) -> Path | None:
    """Return the file of the model's config; None for a shipped one's name and without config."""
    path = Path(experiment.model.config)
    if not experiment.model.config or not path.exists():
        return None
    return path / CONFIG if path.is_dir() else path


def digests(experiment: Experiment) -> dict[str, str]:
    """Return the SHA-256 of every file that a plan is made from, by its part in it."""
    named: dict[str, Path | None] = {
        "config": config_file(experiment),
        "hostfile": _path(experiment.cluster.hostfile),
        "clusterfile": _path(experiment.cluster.clusterfile),
    }
    folder = profile_folder(experiment)
    if folder is not None and folder.is_dir():
        named |= {f"profile {path.name}": path for path in sorted(folder.glob("*.json"))}
    return {part: digest(path) for part, path in named.items() if path and path.is_file()}


def without_paths(experiment: Experiment) -> Experiment:
    """Return the experiment with the names of files that are known by their content left out."""
    changes: dict[str, msgspec.Struct] = {}
    if config_file(experiment) is not None:
        changes["model"] = msgspec.structs.replace(experiment.model, config=CONFIG)
    if experiment.cluster.hostfile:
        changes["cluster"] = msgspec.structs.replace(
            experiment.cluster, hostfile="hostfile", clusterfile="clusterfile"
        )
    if profile_folder(experiment) is not None:
        changes["profile"] = msgspec.structs.replace(experiment.profile, source="folder")
    return msgspec.structs.replace(experiment, **changes)


def _path(name: str) -> Path | None:
    return Path(name) if name else None
