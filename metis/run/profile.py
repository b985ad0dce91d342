"""Profile this machine for an experiment's model (the verb profile)."""

import tempfile
from pathlib import Path

from common.artifact import Ask, Folder
from common.errors import InputError
from common.log import progress
from common.ranks import CPU_RANKS, choose_backend
from metis.inputs.experiment import MEASURE, Experiment
from metis.inputs.synth import powers_of_two
from metis.run.settings import check_family


def profile(experiment: Experiment, folder: Folder, seed: int) -> tuple[list[Path], list[str]]:
    """Measure into the folder and say how to plan with the files."""
    home = folder.at("profiles", experiment.name)
    files = measure_experiment(experiment, home)
    told = [f"{len(files)} profiles in {home}; plan with them by", f"  --set profile.source={home}"]
    return files, told


def measured(experiment: Experiment, ask: Ask) -> Path | None:
    """Return this machine's profiles where the experiment plans by them, measured if need be."""
    if experiment.profile.source != MEASURE:
        return None
    home = ask.folder and ask.folder.at("profiles", experiment.name)
    home = home or Path(tempfile.mkdtemp(prefix="metis-profiles-"))
    if not any(home.glob("*.json")):
        measure_experiment(experiment, home, backend=ask.options.get("backend", ""))
    return home


def measure_experiment(experiment: Experiment, folder: Path, *, backend: str = "") -> list[Path]:
    """Measure every tensor degree and batch size that this machine can, and return the files."""
    import torch

    from metis.run.measure.measure import measure

    model = experiment.model.resolved()
    check_family(model)
    chosen, source = choose_backend(backend), experiment.profile
    devices = torch.cuda.device_count() if chosen == "nccl" else CPU_RANKS
    most = powers_of_two(min(source.max_tp, devices, model.heads))
    degrees = [tp for tp in most if model.splits_over(tp)]
    sizes = powers_of_two(min(source.max_batch_size, model.global_batch))
    with progress(len(degrees) * len(sizes), f"profile {experiment.name}") as advance:
        return measure(
            model,
            folder,
            device_type=device_type(experiment),
            tps=degrees,
            batch_sizes=sizes,
            backend=chosen,
            dtype=experiment.training.dtype,
            devices=None if chosen == "nccl" else largest_cpu_plan(experiment),
            on_file=lambda path: advance(1),
        )


def largest_cpu_plan(experiment: Experiment) -> int:
    """Return the ranks that share this machine's cores when the experiment runs on it."""
    return min(experiment.load_cluster().total_devices(), CPU_RANKS)


def device_type(experiment: Experiment) -> str:
    """Return the type that this machine's devices are recorded as."""
    if experiment.profile.device:
        return experiment.profile.device
    types = experiment.load_cluster().device_types()
    if len(types) > 1:
        raise InputError(
            f"the cluster has the device types {', '.join(types)}; say which this machine has with"
            f" --set profile.device={types[0]}"
        )
    return types[0]
