"""Profile this machine for an experiment's model (the verb profile)."""

from pathlib import Path

from common.errors import InputError
from common.log import progress
from metis.inputs.experiment import Experiment
from metis.inputs.synth import powers_of_two
from metis.run.launch import CPU_RANKS
from metis.run.settings import Backend


def choose_backend(wanted: str = "") -> Backend:
    """Return the wanted backend, or nccl where CUDA is and gloo elsewhere."""
    import torch

    if wanted not in ("", "gloo", "nccl"):
        raise InputError(f"--backend is {wanted!r}, expected gloo or nccl")
    if wanted == "nccl" and not torch.cuda.is_available():
        raise InputError("--backend nccl needs an NVIDIA GPU and CUDA; use --backend gloo on CPUs")
    if wanted:
        return "nccl" if wanted == "nccl" else "gloo"
    return "nccl" if torch.cuda.is_available() else "gloo"


def measure_experiment(experiment: Experiment, folder: Path, *, backend: str = "") -> list[Path]:
    """Measure every tensor degree and batch size that this machine can, and return the files."""
    import torch

    from metis.measure.measure import measure

    chosen, source = choose_backend(backend), experiment.profile
    devices = torch.cuda.device_count() if chosen == "nccl" else CPU_RANKS
    degrees = powers_of_two(min(source.max_tp, devices, experiment.model.heads))
    sizes = powers_of_two(min(source.max_batch_size, experiment.model.global_batch))
    with progress(len(degrees) * len(sizes), f"profile {experiment.name}") as advance:
        return measure(
            experiment.model,
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
