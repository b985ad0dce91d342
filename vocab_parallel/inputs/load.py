"""An experiment with all that its files say: a launch script, a `config.json`, a data sheet."""

from pathlib import Path

import msgspec

from common.errors import InputError
from vocab_parallel.inputs.device import from_sheet
from vocab_parallel.inputs.experiment import Experiment
from vocab_parallel.inputs.family import from_config
from vocab_parallel.inputs.megatron import with_script
from vocab_parallel.inputs.torchtitan import with_job


def loaded(experiment: Experiment) -> Experiment:
    """Return the experiment with its files' values in place; raises InputError by the file."""
    named = {
        "megatron": experiment.megatron,
        "torchtitan": experiment.torchtitan,
        "model.config": experiment.model.config,
    }
    given = [name for name, value in named.items() if value]
    if len(given) > 1:
        raise InputError(f"{given[0]} and {given[1]} both say the model; leave one out")
    if experiment.device and experiment.constants is not None:
        raise InputError("device and constants both say the machine; leave one out")
    if experiment.training.weights and not _is_file(experiment.model.config):
        raise InputError(
            "training.weights needs model.config to be the config.json that belongs to them (a name"
            " says sizes, not every constant)"
        )
    found = with_job(with_script(experiment))
    found = msgspec.structs.replace(found, model=from_config(found.model))
    if found.device:
        return msgspec.structs.replace(found, constants=from_sheet(found.device), device="")
    return found


def _is_file(config: str) -> bool:
    """Say whether a config is one that a file says whole; so is one that was read before."""
    return not config or Path(config).exists()
