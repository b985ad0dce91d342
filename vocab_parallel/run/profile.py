"""Measure this machine for an experiment's model (the verb profile)."""

from pathlib import Path

import msgspec

from common.artifact import Folder
from common.case import to_toml
from common.files import write
from common.spread import cores
from vocab_parallel.inputs.experiment import Experiment


def profile(experiment: Experiment, folder: Folder, seed: int) -> tuple[list[Path], list[str]]:
    """Write the experiment with this machine's constants in it; return the file and what it is.

    On a CPU the cores are shared out as they will be to the experiment's ranks.
    """
    import torch

    from vocab_parallel.run.bench import measure_machine

    cuda = torch.cuda.is_available()
    if not cuda:
        torch.set_num_threads(max(1, cores() // experiment.pipeline.ranks))
    machine = measure_machine(experiment, torch.device("cuda" if cuda else "cpu"), seed)
    measured = msgspec.structs.replace(experiment, constants=machine)
    file = write(folder.at("profiles", f"{experiment.name}.toml"), to_toml(measured))
    return [file], [f"an experiment with this machine's constants: {file}"]
