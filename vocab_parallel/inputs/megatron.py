"""A Megatron training as an experiment of ours: its arguments and its pipeline layout.

Reads the arguments of Megatron-LM's command line from a text file (a launch script will do) and the
layout strings of megatron-core 0.16 (`E` embedding, `t` layer, `L` loss, `|` between stages, `x*n`
and `(x)*n` repeated). What makes another model or split of it than there is here is refused, not
ignored; dropout, of which there is none here, and what only places memory are left aside.
"""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import msgspec

from common.errors import InputError
from vocab_parallel.inputs.experiment import Experiment, Training

_REFUSED = {
    "--context-parallel-size": "1",
    "--virtual-pipeline-model-parallel-size": "1",
    "--num-layers-per-virtual-pipeline-stage": "",
    "--num-experts": "",
    "--normalization": "LayerNorm",
    "--position-embedding-type": "learned_absolute",
}
"""Arguments that change the model or its split in ways this runtime does not, and their one value
that does not."""

_REFUSED_FLAGS = (
    "--swiglu",
    "--squared-relu",
    "--group-query-attention",
    "--multi-latent-attention",
    "--disable-bias-linear",
    "--fp16",
)
"""Flags that do so by being there."""


def read_megatron(experiment: Experiment, path: Path) -> Experiment:
    """Return the experiment with model, pipeline and training of a file of Megatron arguments."""
    if not path.is_file():
        raise InputError(f"megatron: {path}: no such file; expected Megatron's arguments in a text")
    try:
        return from_arguments(experiment, parse(path.read_text()))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def parse(text: str) -> dict[str, str]:
    """Return the arguments of a command line or script; a flag's value is empty."""
    found: dict[str, str] = {}
    name = ""
    for word in shlex.split(text.replace("\\\n", " "), comments=True):
        if word.startswith("--"):
            name, _, value = word.partition("=")
            found[name] = value
        elif name:
            found[name] = f"{found[name]} {word}".strip()
    return found


def from_arguments(experiment: Experiment, given: Mapping[str, str]) -> Experiment:
    """Return the experiment with what the arguments say in place of its own."""
    for name, harmless in _REFUSED.items():
        if given.get(name, harmless) != harmless:
            raise InputError(f"{name} {given[name]} has no counterpart here; leave it out")
    for name in _REFUSED_FLAGS:
        if name in given:
            raise InputError(f"{name} has no counterpart here; leave it out")
    model = msgspec.structs.replace(
        experiment.model,
        layers=_number(given, "--num-layers"),
        hidden=_number(given, "--hidden-size"),
        heads=_number(given, "--num-attention-heads"),
        ffn=_number(given, "--ffn-hidden-size", 0),
        sequence=_number(given, "--seq-length"),
        vocabulary=_number(given, "--vocab-size", experiment.model.vocabulary),
        tied="--untie-embeddings-and-output-weights" not in given,
    )
    ranks = _number(given, "--pipeline-model-parallel-size", 1)
    batch_size = _number(given, "--micro-batch-size", 1)
    replicas = _number(given, "--data-parallel-size", 1)
    whole = _number(given, "--global-batch-size", batch_size * replicas)
    if whole % (batch_size * replicas):
        raise InputError(
            f"--global-batch-size {whole} is no multiple of --micro-batch-size {batch_size} x"
            f" {replicas} replicas"
        )
    layout = given.get("--pipeline-model-parallel-layout", "")
    pipeline = msgspec.structs.replace(
        experiment.pipeline,
        ranks=ranks,
        tensor_parallel=_number(given, "--tensor-model-parallel-size", 1),
        batches=whole // (batch_size * replicas),
        batch_size=batch_size,
        layers=stage_layers(layout, model.layers, ranks) if layout else (),
    )
    training = msgspec.structs.replace(
        experiment.training, data_parallel=replicas, **_training(given, experiment.training)
    )
    return msgspec.structs.replace(experiment, model=model, pipeline=pipeline, training=training)


def stage_layers(layout: str, layers: int, stages: int) -> tuple[int, ...]:
    """Return the layers of every stage of a layout such as `Et*3|(t*4|)*6,t*5L`."""
    spelled = _expand(layout.replace(" ", "").replace(",", ""))
    parts = spelled.split("|")
    counts = tuple(part.count("t") for part in parts)
    ends = spelled.replace("|", "")
    if set(ends) - set("EtL") or not (ends.startswith("E") and ends.endswith("L")):
        raise InputError(f"layout {layout!r}: expected E first, then layers t, then L last")
    if len(parts) != stages or sum(counts) != layers:
        raise InputError(
            f"layout {layout!r} has {len(parts)} stages and {sum(counts)} layers, expected"
            f" {stages} and {layers}"
        )
    return counts


def _expand(layout: str) -> str:
    """Write repetitions out, innermost first."""
    pattern = re.compile(r"\(([^()]*)\)\*(\d+)|([EtL])\*(\d+)")
    while match := pattern.search(layout):
        unit, times = match[1] if match[1] is not None else match[3], match[2] or match[4]
        layout = layout[: match.start()] + unit * int(times) + layout[match.end() :]
    return layout


def _training(given: Mapping[str, str], base: Training) -> dict[str, object]:
    """Return the optimizer's settings that are given."""
    dtype = "bfloat16" if "--bf16" in given else base.dtype
    return {
        "dtype": dtype,
        "learning_rate": _real(given, "--lr", base.learning_rate),
        "weight_decay": _real(given, "--weight-decay", base.weight_decay),
        "betas": (
            _real(given, "--adam-beta1", base.betas[0]),
            _real(given, "--adam-beta2", base.betas[1]),
        ),
        "clip": _real(given, "--clip-grad", base.clip),
    }


def _number(given: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = given.get(name, "" if default is None else str(default))
    if not text.isdigit():
        raise InputError(f"{name} is {text!r}, expected a whole number")
    return int(text)


def _real(given: Mapping[str, str], name: str, default: float) -> float:
    try:
        return float(given.get(name, default))
    except ValueError as error:
        raise InputError(f"{name} is {given[name]!r}, expected a number") from error
