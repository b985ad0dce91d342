"""A Megatron training as an experiment of ours, from its launch script or a file of its arguments.

The script is read as bash reads it (`shell`), its training found (`launcher`), every argument used,
left aside by a list, or refused by name (`arguments`); sizes follow Megatron's rules: replicas are
ranks / (tensor x pipeline parallel ranks), the vocabulary is padded (`tokenizer`), stages hold what
their arguments say (`layout`).
"""

from pathlib import Path
from typing import Any

import msgspec

from common.errors import InputError
from vocab_parallel.inputs.arguments import Given, read_arguments
from vocab_parallel.inputs.experiment import Experiment, Pipeline, Training
from vocab_parallel.inputs.launcher import find_launch
from vocab_parallel.inputs.layout import given_stages
from vocab_parallel.inputs.megatron_model import given_model
from vocab_parallel.inputs.model import Model
from vocab_parallel.inputs.shell.values import MARKS
from vocab_parallel.inputs.tokenizer import padded_size

_LARGEST = 1 << 20
"""Bytes of the largest script that is read."""


def with_script(experiment: Experiment) -> Experiment:
    """Return the experiment with what its file of Megatron arguments says, where it names one."""
    path = experiment.megatron
    return read_megatron(experiment, Path(path)) if path else experiment


def read_megatron(experiment: Experiment, path: Path) -> Experiment:
    """Return the experiment with model, pipeline and training of a launch script.

    Raises:
        InputError: there is no such text, no training in it, or an argument without counterpart.
    """
    try:
        launch = find_launch(_text(path), path.parent)
        given = read_arguments(launch.arguments, launch.missing)
        found = from_arguments(experiment, given, launch.world, path.parent)
    except InputError as error:
        raise InputError(f"megatron: {path}: {error}") from error
    except RecursionError as error:
        raise InputError(f"megatron: {path}: brackets are nested too deep") from error
    about = f"{experiment.about}; " if experiment.about else ""
    aside = f"; left aside: {', '.join(given.aside)}" if given.aside else ""
    return msgspec.structs.replace(found, about=f"{about}from {path.name}{aside}")


def _text(path: Path) -> str:
    """Return a script's text; refuses what is none."""
    if not path.is_file():
        raise InputError(
            "no such file; expected a launch script, or Megatron's arguments in a text"
        )
    if path.stat().st_size > _LARGEST:
        raise InputError(f"{path.stat().st_size} bytes are too many for a launch script")
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"no text: byte {error.start} is no UTF-8; name a launch script"
        ) from error
    if unread := next((c for c in text if (c < " " and c not in "\t\n\r\f") or c in MARKS), ""):
        raise InputError(f"no text: it holds {unread!r}; name a launch script")
    return text


def from_arguments(
    experiment: Experiment, given: Given, world: int | None, folder: Path
) -> Experiment:
    """Return the experiment with what the arguments say; `world` ranks, None: not said."""
    tensor = given.number("--tensor-model-parallel-size", 1)
    stages = given.number("--pipeline-model-parallel-size", 1)
    replicas = _replicas(given, world, tensor * stages, experiment.training.data_parallel)
    model = given_model(given, padded_size(given, tensor, folder))
    pipeline = _pipeline(experiment.pipeline, given, model, replicas)
    training = _training(experiment.training, given, replicas)
    return msgspec.structs.replace(experiment, model=model, pipeline=pipeline, training=training)


def _replicas(given: Given, world: int | None, each: int, otherwise: int) -> int:
    """Return Megatron's data parallel size; where no launcher says the ranks, the experiment's."""
    if given.number("--context-parallel-size", 1) != 1:
        raise InputError("--context-parallel-size has no counterpart here, only 1; leave it out")
    if world is not None and world % each:
        raise InputError(
            f"{world} ranks are no multiple of --tensor-model-parallel-size x"
            f" --pipeline-model-parallel-size = {each}; start a multiple of {each} ranks"
        )
    return otherwise if world is None else world // each


def _pipeline(base: Pipeline, given: Given, model: Model, replicas: int) -> Pipeline:
    tensor = given.number("--tensor-model-parallel-size", 1)
    ranks = given.number("--pipeline-model-parallel-size", 1)
    stages = given_stages(given, model.layers, ranks)
    batch_size = given.number("--micro-batch-size")
    whole = given.number("--global-batch-size", batch_size * replicas)
    if whole % (batch_size * replicas):
        raise InputError(
            f"--global-batch-size {whole} is no multiple of --micro-batch-size {batch_size} x"
            f" {replicas} replicas"
        )
    return msgspec.structs.replace(
        base,
        ranks=ranks,
        virtual_stages=stages.virtual if stages.virtual > 1 else base.virtual_stages,
        tensor_parallel=tensor,
        sequence_parallel=given.has("--sequence-parallel") and tensor > 1,
        batches=whole // (batch_size * replicas),
        batch_size=batch_size,
        layers=stages.layers,
    )


def _recomputed(given: Given) -> dict[str, Any]:
    """Return which layers are computed again.

    Selective recomputation is of attention scores, which are never kept here.
    """
    method, count = "--recompute-method", "--recompute-num-layers"
    granularity = given.text("--recompute-granularity", "selective")
    if granularity not in ("full", "selective"):
        raise InputError(f"--recompute-granularity is {granularity!r}, expected full or selective")
    if granularity == "selective":
        for name in (method, count):
            if given.has(name):
                raise InputError(f"{name} is of --recompute-granularity full alone; leave it out")
        return {}
    found = given.text(method, "none")
    if found not in ("uniform", "block"):
        raise InputError(
            f"--recompute-granularity full with {method} {found}, expected uniform or block"
        )
    return {"recompute": found, "recompute_layers": given.number(count)}


def _training(base: Training, given: Given, replicas: int) -> Training:
    """Return the optimizer's settings; Megatron's defaults (it has none of the learning rate)."""
    return msgspec.structs.replace(
        base,
        data_parallel=replicas,
        shard_optimizer=given.has("--use-distributed-optimizer") and replicas > 1,
        **_recomputed(given),
        dtype="bfloat16" if given.has("--bf16") else "float32",
        learning_rate=given.real("--lr", base.learning_rate),
        weight_decay=given.real("--weight-decay", 0.01),
        betas=(given.real("--adam-beta1", 0.9), given.real("--adam-beta2", 0.999)),
        clip=given.real("--clip-grad", 1.0),
    )
