"""Measure one decoder layer on this machine, into the profile files that `plan` reads.

The layer has the experiment's shape and random weights: attention with grouped keys and values
through torch's scaled_dot_product_attention, RMS norms, a gated MLP. Decodes read a KV cache of
`CONTEXT` tokens. Limits follow from the device's memory by the rule of `helix.inputs.roofline`.
"""

import csv
import statistics
import time
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.log import progress
from helix.inputs.experiment import Experiment
from helix.inputs.roofline import CONTEXT, Shape, limits_of

PROMPTS = (250, 500, 1000, 2000)
DECODES = (2, 8, 32, 128)
TRIALS = 3


def measure(experiment: Experiment, folder: Path, seed: int) -> str:
    """Write `times.csv` and `limits.csv` under the folder and say what was measured.

    Raises:
        InputError: the model is given by name only, or no layer of it fits this machine.
    """
    shape = experiment.model.shape
    if shape is None:
        raise InputError(
            "profile needs the layer's shape: give [model.shape] and model.layers in a TOML"
        )
    import torch

    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    memory = _memory(torch, device)
    limits = limits_of(shape, memory)
    if not limits:
        raise InputError(f"no layer of this model fits {memory / 1e9:.1f} GB; choose a smaller one")
    layer = _Layer(torch, shape, device)
    rows = [("prompt", 0, 0.0), ("decode", 0, 0.0)]
    with progress(len(PROMPTS) + len(DECODES), "measure layers") as advance:
        for phase, sizes in (("prompt", PROMPTS), ("decode", DECODES)):
            for size in sizes:
                rows.append((phase, size, 1e3 * layer.seconds(phase, size)))
                advance(1)
    kind = experiment.cluster.machines[0].kind if experiment.cluster.machines else "this"
    folder.mkdir(parents=True, exist_ok=True)
    with Path(folder, "times.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(("machine", "phase", "tokens", "milliseconds"))
        out.writerows((kind, *row) for row in sorted(rows))
    with Path(folder, "limits.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(("machine", "layers", "kv_blocks", "prompt_max_requests", "decode_max_tokens"))
        for held, limit in enumerate(limits, 1):
            blocks = limit.kv_entries // (16 * held)
            decodes = min(limit.decode_requests, DECODES[-1])
            out.writerow((kind, held, blocks, 1 if limit.prompt_requests else 0, decodes))
    return f"one layer on {device.type} as machine kind {kind!r}, in {folder}; plan with it by"


def _memory(torch: Any, device: Any) -> float:
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    import os

    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


class _Layer:
    """A decoder layer with its weights on the device."""

    def __init__(self, torch: Any, shape: Shape, device: Any) -> None:
        self._torch, self._shape, self._device = torch, shape, device
        self._dtype = torch.float16 if device.type == "cuda" else torch.float32
        hidden, wide, kv = shape.hidden_size, shape.intermediate_size, shape.kv_size
        sizes = ((hidden, hidden + 2 * kv), (hidden, hidden), (hidden, 2 * wide), (wide, hidden))
        self._weights = [self._random(*size) * size[0] ** -0.5 for size in sizes]

    def _random(self, *size: int) -> Any:
        return self._torch.randn(size, dtype=self._dtype, device=self._device)

    def seconds(self, phase: str, size: int) -> float:
        """Return the median time of a pass over a prompt, or over so many decodes."""
        times = [self._timed(phase, size) for _ in range(TRIALS + 1)]
        return statistics.median(times[1:])

    def _timed(self, phase: str, size: int) -> float:
        x = self._random(*((1, size) if phase == "prompt" else (size, 1)), self._shape.hidden_size)
        past = 0 if phase == "prompt" else CONTEXT
        cache = self._random(x.shape[0], self._shape.kv_heads, past, 2 * self._head)
        self._wait()
        begin = time.perf_counter()
        self._forward(x, cache)
        self._wait()
        return time.perf_counter() - begin

    @property
    def _head(self) -> int:
        return self._shape.hidden_size // self._shape.heads

    def _wait(self) -> None:
        if self._device.type == "cuda":
            self._torch.cuda.synchronize()

    def _forward(self, x: Any, cache: Any) -> Any:
        nn = self._torch.nn.functional
        shape, batch, tokens = self._shape, x.shape[0], x.shape[1]
        with self._torch.no_grad():
            projected = nn.rms_norm(x, x.shape[-1:]) @ self._weights[0]
            query, keys = projected.split((shape.hidden_size, 2 * shape.kv_size), dim=-1)
            query = query.view(batch, tokens, shape.heads, self._head).transpose(1, 2)
            keys = keys.view(batch, tokens, shape.kv_heads, 2 * self._head).transpose(1, 2)
            keys = self._torch.cat((cache, keys), dim=2)
            key, value = keys.split(self._head, dim=-1)
            mixed = nn.scaled_dot_product_attention(
                query, key, value, is_causal=tokens > 1, enable_gqa=True
            )
            x = x + mixed.transpose(1, 2).reshape(batch, tokens, -1) @ self._weights[1]
            gate, up = (nn.rms_norm(x, x.shape[-1:]) @ self._weights[2]).chunk(2, dim=-1)
            return x + (nn.silu(gate) * up) @ self._weights[3]
