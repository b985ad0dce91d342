"""Which of the artifact's runs this machine's GPUs can repeat, and what is left out and why."""

import ctypes
import logging
import os

from common.artifact import Case
from puzzle.inputs.cluster import GIB
from puzzle.inputs.model import parameters
from puzzle.paper.repeats import LeftOut, Repeated, repeated
from puzzle.plan.plans import make_plan
from puzzle.simulate.predict import predict

log = logging.getLogger("puzzle")


def device_count() -> int:
    """Return the CUDA devices that this process sees; torch is not loaded without a driver."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def memory_here() -> tuple[float, float]:
    """Return the bytes of the smallest GPU here, and of this machine's own memory."""
    import torch

    sizes = [
        torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())
    ]
    return float(min(sizes)), float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def too_large(run: Repeated, device_bytes: float, host_bytes: float) -> str:
    """Say in short why a run does not fit here; empty where it does."""
    experiment, models = run.experiment, (run.experiment.actor_model, run.experiment.critic_model)
    if experiment.running.engine == "deepspeed":
        # Every rank makes whole float32 models before ZeRO-3 cuts them.
        needed = 4.0 * experiment.world * sum(2 * parameters(model) for model in models)
        if needed > host_bytes:
            return f"needs {needed / GIB:.0f} GiB of host memory, {host_bytes / GIB:.0f} are here"
        return ""
    plan = make_plan(experiment, experiment.method)
    peak = predict(plan, experiment.machines).memory.peak
    if peak > device_bytes:
        return f"needs {peak / GIB:.0f} GiB a device, {device_bytes / GIB:.0f} are here"
    return ""


def repeatable(devices: int) -> list[Case]:
    """Return the artifact's runs that so many GPUs can repeat; says what is left out and why."""
    if not devices:
        log.info(
            "no CUDA device is visible: the artifact's own runs (figures 8 to 12 and table 3"
            " measured on 1 to 32 GPUs) are left out; all else is done"
        )
        return []
    device_bytes, host_bytes = memory_here()
    made: list[Case] = []
    left: dict[str, list[str]] = {}
    for run in repeated(devices):
        if isinstance(run, Repeated):
            why = too_large(run, device_bytes, host_bytes)
            if not why:
                made.append(Case(verb="repeat", experiment=run.experiment))
                continue
            run = LeftOut(run.experiment.name, why)
        left.setdefault(run.why, []).append(run.experiment)
    if left:
        told = "; ".join(f"{', '.join(names)}: {why}" for why, names in left.items())
        log.info("left out on %d GPUs: %s", devices, told)
    return made
