"""Measure this machine: the stages that `run` serves, shard by shard, into our profile format.

Every different stage of a pipeline is built and timed alone on one device, or with tensor degree
`op` on `op` of them, which add up over gloo or NCCL as they do when serving. What the machine has
too few devices for is left out and said. Weights are counted exactly.
"""

import logging
import multiprocessing
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from beta.inputs.experiment import Experiment
from beta.inputs.profile import Row, profiles_of, write_profiles
from beta.inputs.serving import MeasureSettings
from beta.inputs.shapes import Shape, shape_of
from beta.spread import cores
from common.errors import InputError

if TYPE_CHECKING:
    from beta.run.timing import Task

END_S = 5.0
"""Seconds that a process has to end by itself."""
_log = logging.getLogger(__name__)


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
    path.parent.mkdir(parents=True, exist_ok=True)
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
    """Return the rows of a task; a tensor degree above 1 takes as many processes."""
    from beta.run.timing import time_rank, time_stages

    if task.op == 1:
        return time_stages(task)
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="measure-") as folder:
        where = f"file://{folder}/rendezvous"
        processes = [
            context.Process(target=time_rank, args=(task, rank, where, send), daemon=True)
            for rank in range(task.op)
        ]
        for process in processes:
            process.start()
        try:
            while not receive.poll(0.2):
                if any(process.exitcode for process in processes):
                    raise InputError(f"{task.kind}: a process of tensor degree {task.op} died")
            return receive.recv()
        finally:
            for process in processes:
                process.join(END_S)
                process.kill()
