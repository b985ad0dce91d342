"""Measure this machine for an experiment's model (the verb profile)."""

from pathlib import Path

import msgspec

from common.case import to_toml
from vocab_parallel.inputs.experiment import Experiment


def profile_experiment(experiment: Experiment, folder: Path, *, seed: int) -> Path:
    """Write the experiment with this machine's constants in it, and return the file.

    On a CPU the cores are shared out as they will be to the experiment's ranks.
    """
    import torch

    from vocab_parallel.run.bench import measure_machine
    from vocab_parallel.run.member import available_cores

    cuda = torch.cuda.is_available()
    if not cuda:
        torch.set_num_threads(max(1, available_cores() // experiment.pipeline.ranks))
    machine = measure_machine(experiment, torch.device("cuda" if cuda else "cpu"), seed)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{experiment.name}.toml"
    file.write_text(to_toml(msgspec.structs.replace(experiment, constants=machine)))
    return file
