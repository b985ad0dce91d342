"""Measure this machine, into the profile files that `plan` reads and into `links.csv`.

A few decoder layers of the experiment's shape with random weights are timed by the code that
serves them (`run/stage.py`). Decodes read a KV cache of `CONTEXT` tokens. Limits follow from the
memory by the rule of `helix.inputs.roofline`. A kind of machine that is played
(`profile.kinds.K.slower`) has this machine's times, so many times as long.
"""

import csv
import io
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import files
from common.errors import InputError
from common.log import progress
from helix.inputs.experiment import Experiment, KindSource
from helix.inputs.layer import CONTEXT, Layer, Shape
from helix.inputs.profile import Limits
from helix.inputs.roofline import limits_of

if TYPE_CHECKING:
    import torch

PROMPTS = (128, 256, 512, 1024, 2048)
DECODES = (1, 2, 4, 8, 16, 32, 64, 128)
TRIALS = 5
LAYERS = 4  # timed together: what a batch costs once is shared out as in the service

TIMES = ("machine", "phase", "tokens", "milliseconds")
LIMITS = ("machine", "layers", "kv_blocks", "prompt_max_requests", "decode_max_tokens")
LINKS = ("from", "to", "gbit_per_s", "latency_ms")
FILES = ("times.csv", "limits.csv", "links.csv")


def measure(experiment: Experiment, folder: Path, seed: int) -> str:
    """Write `times.csv`, `limits.csv` and `links.csv` and say what was measured.

    Raises:
        InputError: the model is given by name only, or no layer of it fits this machine.
    """
    shape = experiment.model.shape
    if shape is None:
        raise InputError(
            "profile needs the layer's shape: give [model.shape] and model.layers in a TOML"
        )
    import torch

    from helix.run.measure_link import measured_link

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(experiment.serve.threads)
    try:
        kinds = _kinds(experiment)
        layer, usable = shape.layer(experiment.model.layers), experiment.profile.memory_fraction
        limits = {k: _limits(layer, usable, k, one, device) for k, one in kinds.items()}
        rows = _timed(shape, device, seed, min(LAYERS, max(map(len, limits.values()))))
    finally:
        torch.set_num_threads(threads)
    _write(folder / "times.csv", TIMES, _times(kinds, rows))
    _write(folder / "limits.csv", LIMITS, _limit_rows(limits))
    rate, latency = measured_link()
    _write(folder / "links.csv", LINKS, [("this", "this", rate * 8 / 1e9, latency * 1e3)])
    return (
        f"layers on {device.type} as machine kind {', '.join(kinds)}; the wire within this machine"
        f" {rate * 8 / 1e9:.1f} Gbit/s, {latency * 1e3:.2f} ms"
    )


def _kinds(experiment: Experiment) -> dict[str, KindSource]:
    names = [group.kind for group in experiment.cluster.machines] or ["this"]
    return {name: experiment.profile.kinds.get(name, KindSource()) for name in names}


def _limits(
    layer: Layer, usable: float, kind: str, one: KindSource, device: "torch.device"
) -> list[Limits]:
    memory = one.memory_gb * 1e9 or _memory(device)
    found = limits_of(layer, memory, usable)[: one.most_layers or None]
    if not found:
        raise InputError(
            f"no layer of this model fits the {memory / 1e9:.3g} GB of machine kind {kind!r};"
            " choose a smaller one"
        )
    return list(found)


def _memory(device: "torch.device") -> float:
    if device.type == "cuda":
        import torch

        return float(torch.cuda.get_device_properties(device).total_memory)
    import os

    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _timed(shape: Shape, device: "torch.device", seed: int, layers: int) -> list[tuple[Any, ...]]:
    """Return phase, tokens and this machine's milliseconds of one layer."""
    timing, rows = _Timing(shape, device, seed, layers), list[tuple[Any, ...]]()
    with progress(len(PROMPTS) + len(DECODES), "measure layers") as advance:
        for phase, sizes in (("decode", DECODES), ("prompt", PROMPTS)):
            rows.append((phase, 0, 0.0))
            for size in sizes:
                rows.append((phase, size, 1e3 * timing.seconds(phase, size)))
                advance(1)
    return rows


def _times(
    kinds: dict[str, KindSource], rows: Sequence[tuple[Any, ...]]
) -> Iterable[tuple[Any, ...]]:
    for kind, one in kinds.items():
        for phase, size, milliseconds in rows:
            yield kind, phase, size, milliseconds * one.slower


def _limit_rows(limits: dict[str, list[Limits]]) -> Iterable[tuple[Any, ...]]:
    for kind, by_layers in limits.items():
        for held, limit in enumerate(by_layers, 1):
            blocks = limit.kv_entries // (16 * held)
            decodes = min(limit.decode_requests, DECODES[-1])
            yield kind, held, blocks, 1 if limit.prompt_requests else 0, decodes


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(columns)
    out.writerows(rows)
    files.write(path, text.getvalue())


class _Timing:
    """A stage of a few layers, and passes through it."""

    def __init__(self, shape: Shape, device: "torch.device", seed: int, layers: int) -> None:
        import torch

        from helix.run.decoder_config import config_of_shape
        from helix.run.stage import Holding, Stage

        dtype = "float16" if device.type == "cuda" else "float32"
        entries = (max(DECODES) * (CONTEXT + 16) + max(PROMPTS)) * layers
        config = config_of_shape(shape, layers, 1, max(PROMPTS) + 1)
        holding = Holding(0, layers, entries, "", seed, device.type, dtype)
        self._stage, self._layers, self._numbers = Stage(config, holding), layers, 0
        # One thread's own processor time is not lengthened by what else this machine does.
        alone = device.type == "cpu" and torch.get_num_threads() == 1
        self._clock = time.thread_time if alone else time.perf_counter

    def seconds(self, phase: str, size: int) -> float:
        """Return the median seconds that a batch of this size takes in one layer."""
        times = [self._pass(phase, size) / self._layers for _ in range(TRIALS + 1)]
        return statistics.median(times[1:])

    def _pass(self, phase: str, size: int) -> float:
        import torch

        from helix.run.messages import Key
        from helix.run.stage import Item

        stage, prompt = self._stage, phase == "prompt"
        shapes = [(0, size)] if prompt else [(CONTEXT, 1)] * size
        items = list[Item]()
        for begin, count in shapes:
            self._numbers += 1
            item = Item(Key(self._numbers, 0), range(self._layers), begin, count, prompt=prompt)
            item.x_TD = torch.randn(count, stage.config.hidden_size).to(stage.device, stage.dtype)
            stage.admit(item)
            items.append(item)
        self._wait()
        begin_s = self._clock()
        for layer in range(self._layers):
            stage.layer(layer, items)
        self._wait()
        seconds = self._clock() - begin_s
        for item in items:
            stage.pool.release(item.key)
        return seconds

    def _wait(self) -> None:
        if self._stage.device.type == "cuda":
            import torch

            torch.cuda.synchronize()
