"""Measure this machine's device: transformer layers in half precision, into our profile format.

What is timed is one layer, the embedding and the head of each model on one device; stages of a
pipeline are sums of these. Tensor degrees above 1 need several devices at once and are not
measured, so plans from such a profile have pipelines only. Weights are counted exactly.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from beta.inputs.experiment import Experiment
from beta.inputs.profile import Config, Row, profiles_of, write_profiles
from common.errors import InputError

if TYPE_CHECKING:
    import torch

VOCABULARY, LABELS = 51_200, 5
DEPTHS = (1, 2, 4, 8)
"""Pipeline depths that are composed."""
RUNS, WARM_UPS = 5, 2
_log = logging.getLogger(__name__)


class Shape(NamedTuple):
    """A BERT: what its latency and weights follow from."""

    sequence: int
    hidden: int
    layers: int
    heads: int


SHAPES = {
    "bert-125m": Shape(2048, 768, 12, 12),
    "bert-350m": Shape(2048, 1024, 24, 16),
    "bert-760m": Shape(2048, 1536, 24, 16),
    "bert-1.3b": Shape(2048, 2048, 24, 32),
    "bert-2.6b": Shape(2048, 2560, 32, 32),
    "bert-6.7b": Shape(2048, 4096, 32, 32),
    "bert-15b": Shape(2048, 5120, 48, 40),
}
"""As in the artifact (AlpaServe's model table); weights are 16 bits, the inner layer 4 x hidden."""


class Timed(NamedTuple):
    """Seconds and weight bytes of the pieces of a model."""

    embedding_s: float
    layer_s: float
    head_s: float
    embedding_bytes: float
    layer_bytes: float
    head_bytes: float


def measure_experiment(experiment: Experiment, path: Path) -> Path:
    """Measure every type of the experiment's models and write a profile file; return it."""
    types = list(dict.fromkeys(kind for entry in experiment.models for kind in entry.types))
    unknown = [kind for kind in types if kind not in SHAPES]
    if unknown:
        raise InputError(
            f"no shape of {', '.join(unknown)} is known here; can measure {', '.join(SHAPES)}"
        )
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    rows = list[Row]()
    for kind in types:
        timed = time_pieces(SHAPES[kind], device)
        _log.info("%s: one layer takes %.4g s on %s", kind, timed.layer_s, name)
        for depth in DEPTHS:
            rows += compose(kind, SHAPES[kind].layers, timed, depth)
    path.parent.mkdir(parents=True, exist_ok=True)
    source = f"measured on this machine ({name}): layers timed, stages composed; batch 1"
    write_profiles(profiles_of(rows, "measurement"), path, source=source)
    return path


def compose(kind: str, layers: int, timed: Timed, depth: int) -> list[Row]:
    """Return the stages of a pipeline with the layers spread evenly, the first stages fuller."""
    rows = list[Row]()
    for stage in range(depth):
        held = layers // depth + (stage < layers % depth)
        seconds, weight = held * timed.layer_s, held * timed.layer_bytes
        if stage == 0:
            seconds, weight = seconds + timed.embedding_s, weight + timed.embedding_bytes
        if stage == depth - 1:
            seconds, weight = seconds + timed.head_s, weight + timed.head_bytes
        rows.append(Row(kind, Config(1, depth), 1, stage, seconds, weight))
    return rows


def time_pieces(shape: Shape, device: "torch.device") -> Timed:
    """Return the measured seconds and counted bytes of a model's pieces."""
    import torch
    from torch import nn

    half = torch.float16 if device.type == "cuda" else torch.bfloat16
    pieces = (
        nn.Embedding(VOCABULARY, shape.hidden),
        nn.TransformerEncoderLayer(
            shape.hidden, shape.heads, 4 * shape.hidden, batch_first=True, activation="gelu"
        ),
        nn.Linear(shape.hidden, LABELS),
    )
    tokens = torch.zeros(1, shape.sequence, dtype=torch.long, device=device)
    states = torch.zeros(1, shape.sequence, shape.hidden, dtype=half, device=device)
    seconds, sizes = list[float](), list[float]()
    with torch.inference_mode():
        for module, given in zip(pieces, (tokens, states, states), strict=True):
            placed = module.to(device, half).eval()
            seconds.append(_median_s(lambda run=placed, x=given: run(x), device))
            sizes.append(sum(p.numel() * p.element_size() for p in placed.parameters()))
    return Timed(*seconds, *sizes)


def _median_s(run: Callable[[], object], device: "torch.device") -> float:
    import torch

    times = list[float]()
    for _ in range(WARM_UPS + RUNS):
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return sorted(times[WARM_UPS:])[RUNS // 2]
