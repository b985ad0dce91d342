"""Measure this machine: the stages that `run` serves, shard by shard, into our profile format.

Every different stage of a pipeline is built and timed alone on one device, or with tensor degree
`op` on `op` of them, which add up over gloo or NCCL as they do when serving. What the machine has
too few devices for is left out and said. Weights are counted exactly. Importing this loads no
torch.
"""

import logging
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from beta.inputs.experiment import MACHINE, Experiment
from beta.inputs.profile import Row, profiles_of, write_profiles
from beta.inputs.serving import MeasureSettings, ServeSettings
from beta.inputs.shapes import Shape, shape_of
from common.artifact import Ask, Case, Folder
from common.case import case_id
from common.errors import InputError
from common.ranks import choose_backend, run_ranks
from common.spread import cores

if TYPE_CHECKING:
    from beta.run.timing import Task

TIMEOUT_S = 600.0
"""Seconds that a rank may wait for the others."""
_log = logging.getLogger("beta")
_unkept = dict[str, tempfile.TemporaryDirectory[str]]()
"""Folders of profiles that were measured without an output folder, until this process ends."""


def profile(experiment: Experiment, folder: Folder, seed: int) -> tuple[list[Path], list[str]]:
    """Measure into the folder and say how to plan with the file."""
    path = measure_experiment(experiment, profile_path(experiment, folder))
    return [path], [f"profile: {path}; plan with it by --set profile={path}"]


def profile_path(experiment: Experiment, folder: Folder) -> Path:
    """Return the file of this machine's profile for an experiment."""
    return folder.at("profiles", f"{experiment.name}.csv")


def prepare(case: Case, ask: Ask) -> Case:
    """Return the case with the file of this machine's profile, measured if not there yet.

    Raises InputError at once where the service could not listen, or its key is not there.
    """
    experiment: Experiment = case.experiment
    if case.verb == "run":
        check_port(experiment.serve)
    if experiment.profile != MACHINE:
        return case
    path = profile_path(experiment, ask.folder) if ask.folder else _unkept_path(experiment)
    if not path.is_file():
        _log.info("no profile of this machine yet; measuring")
        measure_experiment(experiment, path)
    measured = msgspec.structs.replace(experiment, profile=str(path))
    return msgspec.structs.replace(case, experiment=measured)


def check_port(settings: ServeSettings) -> None:
    """Raise InputError where a service of this machine could not open its port now."""
    settings.key()
    if settings.target or settings.ray != "local":
        return
    address = (settings.host, settings.port)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as asking:
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            asking.bind(address)
            asking.listen(1)
        except OSError as error:
            raise InputError(
                f"serve.host {settings.host}, serve.port {settings.port}: {error.strerror}; give"
                " another by --set serve.port=PORT, 0 for any that is free"
            ) from error


def _unkept_path(experiment: Experiment) -> Path:
    """Return a file that goes with this process, one for each set of models measured."""
    measured = case_id([experiment.models, experiment.shapes, experiment.measure])
    if measured not in _unkept:
        _unkept[measured] = tempfile.TemporaryDirectory(prefix="beta-profile-")
    return Path(_unkept[measured].name, "profile.csv")


def measure_experiment(experiment: Experiment, path: Path) -> Path:
    """Measure every type of the experiment's models and write a profile file; return it."""
    from beta.run.deploy import described

    kinds = dict.fromkeys(kind for entry in experiment.models for kind in entry.types)
    shapes = {kind: described(shape_of(kind, experiment.shapes)) for kind in kinds}
    device, have = _devices()
    rows = list[Row]()
    for kind, shape in shapes.items():
        for task in _tasks(kind, shape, experiment.measure, have):
            found = measure(task)
            _log.info("%s, op %d: %.4g s on one stage", kind, task.op, found[0].latency_s)
            rows += found
    source = f"measured on this machine ({device}): every stage alone, as it is served"
    write_profiles(profiles_of(rows, "measurement"), path, source=source)
    return path


def _devices() -> tuple[str, int]:
    """Return what is measured and how many of it there are."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(), torch.cuda.device_count()
    return "CPU, one thread a device", cores()


def _tasks(kind: str, shape: Shape, settings: MeasureSettings, have: int) -> Iterator["Task"]:
    from beta.run.timing import Task
    from beta.run.weights import open_model

    bert, _ = open_model(shape, 0)
    layers = bert.num_hidden_layers if bert else 1
    for op in settings.op:
        fits = not bert.num_attention_heads % op if bert else op == 1
        if op > have or not fits:
            why = f"only {have} devices here" if op > have else "it does not divide the model"
            _log.warning("%s: op %d is left out: %s", kind, op, why)
            continue
        depths = tuple(pp for pp in settings.pp if pp <= layers)
        yield Task(kind, shape, layers, op, depths, settings.batch, settings.runs)


def measure(task: "Task") -> list[Row]:
    """Return the rows of a task; a tensor degree above 1 takes as many ranks."""
    from beta.run.timing import time_rank, time_stages

    if task.op == 1:
        return time_stages(task)
    return run_ranks(time_rank, task.op, task, backend=choose_backend(), timeout_s=TIMEOUT_S)[0]
