"""What happens before a case is planned: mistakes are refused, and this machine is measured."""

import msgspec

from common.artifact import Ask, Case, with_field
from common.errors import InputError
from helix.inputs.experiment import HERE, Experiment
from helix.run.profile import measured_here


def prepare(case: Case, ask: Ask) -> Case:
    """Return the case with this machine's profile and the device asked for.

    A run that cannot be is refused before anything is measured or planned.
    """
    experiment: Experiment = case.experiment
    if case.verb == "run":
        from helix.run.deploy import model_config

        experiment = _served_on(experiment, ask)
        model_config(experiment)
    if experiment.profile.source == HERE:
        source = str(measured_here(experiment, ask, case.seed))
        experiment = with_field(experiment, "profile.source", source)
    return msgspec.structs.replace(case, experiment=experiment)


def _served_on(experiment: Experiment, ask: Ask) -> Experiment:
    world_size, device = ask.options.get("world_size"), ask.options.get("backend", "")
    machines = len(experiment.cluster.load().nodes)
    if world_size not in (None, machines):
        raise InputError(
            f"--world-size is {world_size}, but the experiment's cluster has {machines} machines"
        )
    if device not in ("", "cpu", "cuda"):
        raise InputError(f"--backend is {device!r}, expected cpu or cuda")
    return with_field(experiment, "serve.device", device or experiment.serve.device)
