"""A job config of torchtitan as an experiment of ours, by torchtitan's defaults.

Its fully sharded replicas keep whole weights between the passes where there is a pipeline and share
main weights and moments out, as ZeRO-1 does. Where the config leaves the replicas to the number of
ranks (-1), `training.data_parallel` says them.
"""

import tomllib
from pathlib import Path
from typing import Any

import msgspec

from common.errors import InputError
from vocab_parallel.inputs.experiment import Experiment, Pipeline, Training
from vocab_parallel.inputs.job_keys import Job, lists, read_job
from vocab_parallel.inputs.model import Model

_MODES = ("none", "full", "selective")


def with_job(experiment: Experiment) -> Experiment:
    """Return the experiment with what its torchtitan job config says, where it names one."""
    path = Path(experiment.torchtitan)
    if not experiment.torchtitan:
        return experiment
    try:
        job = read_job(_document(path))
        found = from_job(experiment, job)
    except InputError as error:
        raise InputError(f"torchtitan: {path}: {error}") from error
    about = f"{experiment.about}; " if experiment.about else ""
    aside = f"; left aside: {', '.join(job.aside)}" if job.aside else ""
    return msgspec.structs.replace(found, about=f"{about}from {path.name}{aside}")


def _document(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError("no such file; expected a job config of torchtitan") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"no TOML: {error}") from error


def from_job(experiment: Experiment, job: Job) -> Experiment:
    """Return the experiment with what a job config says; torchtitan's defaults."""
    replicas, shares = _replicas(job, experiment.training.data_parallel)
    return msgspec.structs.replace(
        experiment,
        model=Model(config=_model(job), sequence=job.number("training.seq_len", 2048)),
        pipeline=_pipeline(experiment.pipeline, job, replicas),
        training=_training(experiment.training, job, replicas, shares=shares),
    )


def _model(job: Job) -> str:
    flavor = f"{job.used.get('model.name', 'llama3')}.{job.used.get('model.flavor', 'debugmodel')}"
    found = lists().flavors.get(flavor)
    if found is None:
        raise InputError(
            f"model.name and model.flavor say {flavor}, whose sizes are not known here; expected"
            f" one of {', '.join(lists().flavors)}, or give [model] in place of torchtitan"
        )
    return found


def _replicas(job: Job, otherwise: int) -> tuple[int, bool]:
    """Return the replicas, and whether they share the optimizer out."""
    copies = job.number("parallelism.data_parallel_replicate_degree", 1)
    shards = job.number("parallelism.data_parallel_shard_degree", -1, least=-1)
    if shards == 0:
        raise InputError("parallelism.data_parallel_shard_degree is 0, expected -1, or 1 or more")
    if shards == -1:
        if otherwise % copies:
            raise InputError(
                f"training.data_parallel is {otherwise}, no multiple of"
                f" parallelism.data_parallel_replicate_degree = {copies}"
            )
        shards = otherwise // copies
    if shards > 1 and copies > 1:
        raise InputError(
            f"parallelism.data_parallel_replicate_degree is {copies} beside {shards} shards; here"
            " all replicas share the optimizer out or none; set one of them to 1"
        )
    kept = job.word("parallelism.fsdp_reshard_after_forward", "default", ("default", "never"))
    piped = job.number("parallelism.pipeline_parallel_degree", 1) > 1
    if shards > 1 and not piped and kept != "never":
        raise InputError(
            f"parallelism.data_parallel_shard_degree is {shards} without a pipeline, which shares"
            " weights out too (ZeRO-3); set parallelism.pipeline_parallel_degree to 2 or more, or"
            ' parallelism.fsdp_reshard_after_forward to "never"'
        )
    return copies * shards, shards > 1


def _pipeline(base: Pipeline, job: Job, replicas: int) -> Pipeline:
    """Return ranks and micro-batches; without a pipeline the whole local batch is one of them."""
    ranks = job.number("parallelism.pipeline_parallel_degree", 1)
    tensor = job.number("parallelism.tensor_parallel_degree", 1)
    older = job.number("training.batch_size", 8)
    local = job.number("training.local_batch_size", older)
    size = job.number("parallelism.pipeline_parallel_microbatch_size", 1) if ranks > 1 else local
    asked = job.number("training.global_batch_size", -1, least=-1)
    whole = local * replicas if asked == -1 else asked
    if local % size or whole % (local * replicas) or whole < 1:
        raise InputError(
            f"training.global_batch_size {whole} and local_batch_size {local} are no multiples of"
            f" {local} x {replicas} replicas and of micro-batches of {size}"
        )
    return msgspec.structs.replace(
        base,
        ranks=ranks,
        tensor_parallel=tensor,
        sequence_parallel=tensor > 1,
        batches=whole // (replicas * size),
        batch_size=size,
        layers=_layers(job) or base.layers,
    )


def _layers(job: Job) -> tuple[int, ...]:
    """Return the layers of every part of the model; empty where torchtitan shares them out."""
    name = "parallelism.module_fqns_per_model_part"
    parts = job.used.get(name) or []
    if not isinstance(parts, list) or not all(isinstance(part, list) for part in parts):
        raise InputError(f"{name} is {parts!r}, expected a list of modules for each part")
    names = [str(module) for part in parts for module in part]
    blocks = [module for module in names if module.startswith("layers.")]
    usual = ["tok_embeddings", *(f"layers.{i}" for i in range(len(blocks))), "norm", "output"]
    if parts and names != usual:
        raise InputError(
            f"{name} has other modules than tok_embeddings, layers.0 and on, norm and output in"
            " this order; list each of them once"
        )
    return tuple(sum(str(m).startswith("layers.") for m in part) for part in parts)


def _training(base: Training, job: Job, replicas: int, *, shares: bool) -> Training:
    kind = job.word("training.mixed_precision_param", "bfloat16", ("bfloat16", "float32"))
    return msgspec.structs.replace(
        base,
        steps=job.number("training.steps", 10000),
        dtype=kind,
        data_parallel=replicas,
        shard_optimizer=shares,
        learning_rate=job.real("optimizer.lr", 8e-4),
        weight_decay=job.real("optimizer.weight_decay", 0.1),
        betas=(job.real("optimizer.beta1", 0.9), job.real("optimizer.beta2", 0.95)),
        clip=job.real("training.max_norm", 1.0),
        **_recomputed(job),
    )


def _recomputed(job: Job) -> dict[str, Any]:
    """Return which layers are computed again: none, all one by one, or every n-th."""
    mode = job.word("activation_checkpoint.mode", "selective", _MODES)
    if mode != "selective":
        return {} if mode == "none" else {"recompute": "uniform", "recompute_layers": 1}
    option = str(job.used.get("activation_checkpoint.selective_ac_option", "2"))
    if not option.isdecimal() or option == "0":
        raise InputError(
            f"activation_checkpoint.selective_ac_option is {option!r}, which has no counterpart"
            " here; give the n of every n-th layer, or set mode to 'full' or 'none'"
        )
    return {"recompute": "every", "recompute_layers": int(option)}
