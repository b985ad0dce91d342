"""The verb `profile`: measure this machine for an experiment, into files to plan with."""

import atexit
import logging
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from common.artifact import Ask, Folder
from common.case import case_id
from helix.inputs.experiment import HERE, Experiment
from helix.inputs.sources import contents
from helix.run.measure import FILES, measure

_log = logging.getLogger("helix")


def profile(experiment: Experiment, folder: Folder, seed: int) -> tuple[list[Path], list[str]]:
    """Measure into the folder and say how to plan with the files."""
    home = folder.at("profiles", home_of(experiment))
    told = [
        f"{measure(experiment, home, seed)}; in {home}; plan with it by",
        f"  --set profile.source={home}",
    ]
    return [home / name for name in FILES], told


def measured_here(experiment: Experiment, ask: Ask, seed: int) -> Path:
    """Return the folder of this machine's profile, measured if it is not there yet."""
    name = home_of(experiment)
    home = ask.folder.at("profiles", name) if ask.folder else _temporary(name)
    if not all((home / file).is_file() for file in FILES):
        _log.info("%s", measure(experiment, home, seed))
    return home


def home_of(experiment: Experiment) -> str:
    """Return its folder's name: of the experiment, or of what it asks of this machine."""
    if experiment.profile.source != HERE:
        return experiment.name
    config = contents(experiment).get("model.config", "")
    asked = (experiment.model, config, experiment.profile, experiment.serve.threads)
    return f"{experiment.model.stem}-{case_id(asked)}"


@cache
def _temporary(name: str) -> Path:
    """Return a folder for what is measured where nothing is to be kept; gone with this process."""
    home = Path(mkdtemp(prefix=f"helix-{name}-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    return home
