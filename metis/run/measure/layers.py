"""Time and memory of every layer on real tensor-parallel ranks, as `metis.run` executes them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from statistics import median
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from common.clock import Clock
from metis.inputs.model import Model
from metis.run.data import batch
from metis.run.measure.memory import MB, Memory, available_memory, layer_memory
from metis.run.model import Place, build
from metis.run.parallel import TensorGroup
from metis.run.settings import Training
from metis.run.train import make_optimizer
from metis.run.weights import parameters

_FILL = 0.8
"""Share of the available memory that a measurement may plan with."""


class Setting(NamedTuple):
    """What to measure and how often."""

    model: Model
    tp: int
    batch_sizes: Sequence[int]
    dtype: str
    cuda: bool
    blocks: int | None
    warmups: int
    repeats: int


class Measured(NamedTuple):
    """One (tp, batch size): the slowest rank's medians per layer, and the samples of a step."""

    bs: int
    layer_ms: list[float]
    between_ms: float
    optimizer_ms: float
    batch_generator_ms: float
    memory_mb: list[float]
    blocks: int
    """Blocks that were really there; the other layers' figures repeat theirs."""
    step_ms: list[float]


def measure_rank(rank: int, report: Callable[[Measured], None], setting: Setting) -> None:
    """Measure all batch sizes on this rank; rank 0 reports each as it is done.

    Ends early when the next batch size would not fit into memory.
    """
    device = torch.device("cuda", torch.cuda.current_device()) if setting.cuda else "cpu"
    group = dist.group.WORLD if setting.tp > 1 else None
    dtype: torch.dtype = getattr(torch, setting.dtype)
    place = Place(TensorGroup(group, rank, setting.tp), 0, dtype, torch.device(device))
    bench = _Bench(setting, place)
    for bs in setting.batch_sizes:
        found = bench.measure(bs)
        if found is None:
            return
        if rank == 0:
            report(found)


class _Bench:
    """The measurements of one rank, smallest batch first."""

    def __init__(self, setting: Setting, place: Place) -> None:
        self.setting, self.place, self.model = setting, place, setting.model
        self.clock = Clock(place.device)
        self.numbers = (0, 1, self.model.layers - 1)  # one layer of each kind
        self.kinds = [build(self.model, number, place) for number in self.numbers]
        self.memory: list[Memory] = []
        self.bs = 0

    def measure(self, bs: int) -> Measured | None:
        """Measure one batch size; None if it does not fit."""
        if self.bs and not self._agree(self._expected(bs) < self._room()):
            return None
        generate_ms = self._median(lambda: self._inputs(bs))
        self.memory, self.bs = self._layer_memories(bs), bs
        blocks = self._agree(self._blocks())
        if blocks < 1:
            return None
        layers = self._whole(blocks)
        spans, between, steps = self._steps(layers, bs)
        update_ms = self._median(make_optimizer(layers, Training()).step)
        return Measured(
            bs=bs,
            layer_ms=_spread(self._slowest(spans), self.model.layers),
            between_ms=self._slowest([between])[0],
            optimizer_ms=self._slowest([update_ms])[0] * self._all_over_built(blocks),
            batch_generator_ms=self._slowest([generate_ms])[0],
            memory_mb=_spread([memory.total / MB for memory in self.memory], self.model.layers),
            blocks=blocks,
            step_ms=steps,
        )

    def _inputs(self, bs: int) -> tuple[Tensor, Tensor]:
        """Return the tokens of one micro-batch and their labels, on the device."""
        tokens = torch.from_numpy(batch(self.model, bs, seed=0, step=0)).to(self.place.device)
        return tokens[:, :-1], tokens[:, 1:]

    def _layer_memories(self, bs: int) -> list[Memory]:
        """Return the memory of one layer of each kind, each on its own."""
        tokens_NT, labels_NT = self._inputs(bs)
        x_NTH = torch.zeros(
            (*tokens_NT.shape, self.model.hidden_size),
            dtype=self.place.dtype,
            device=self.place.device,
            requires_grad=True,
        )
        inputs = ((tokens_NT, None), (x_NTH, None), (x_NTH, labels_NT))
        return [
            layer_memory(layer, *given) for layer, given in zip(self.kinds, inputs, strict=True)
        ]

    def _whole(self, blocks: int) -> nn.ModuleList:
        """Return the model with that many real blocks of equal weights."""
        first, block, last = self.kinds
        return nn.ModuleList([first, block, *(deepcopy(block) for _ in range(blocks - 1)), last])

    def _steps(self, layers: nn.ModuleList, bs: int) -> tuple[list[float], float, list[float]]:
        """Return each layer's median ms, the median of what is between them, all step times."""
        tokens, labels = self._inputs(bs)
        times: list[list[float]] = []
        steps: list[float] = []
        for repeat in range(self.setting.warmups + self.setting.repeats):
            layers.zero_grad(set_to_none=False)
            self._meet()
            self.clock.begin()
            _step(layers, tokens, labels, self.clock)
            elapsed = self.clock.now_ms()
            if repeat >= self.setting.warmups:
                spent = [0.0] * len(layers)
                for span in self.clock.spans():
                    spent[span.batch] += span.duration_ms
                times.append(spent)
                steps.append(elapsed)
        between = [step - sum(spent) for step, spent in zip(steps, times, strict=True)]
        return [median(layer) for layer in zip(*times, strict=True)], median(between), steps

    def _median(self, work: Callable[[], object]) -> float:
        """Return the median ms of some work after warming up."""
        samples = []
        for _ in range(self.setting.warmups + self.setting.repeats):
            self._meet()
            start = time.perf_counter()
            work()
            self._wait()
            samples.append((time.perf_counter() - start) * 1e3)
        return median(samples[self.setting.warmups :])

    def _blocks(self) -> int:
        """Return how many blocks fit beside embedding and head, all if they do."""
        first, block, last = (memory.total for memory in self.memory)
        wanted = min(self.setting.blocks or self.model.layers, self.model.layers - 2)
        return min(wanted, int((self._room() - first - last) // block))

    def _expected(self, bs: int) -> float:
        """Return the bytes that the largest single layer will need, temporaries included."""
        growth = 2 * bs / self.bs
        return max(memory.fixed + memory.activations * growth for memory in self.memory)

    def _room(self) -> float:
        return _FILL * available_memory(self.place.device, self.setting.tp)

    def _all_over_built(self, blocks: int) -> float:
        """Return the whole model's parameters over those of the layers that were built."""
        first, block, last = (parameters(self.model, number) for number in self.numbers)
        return (first + (self.model.layers - 2) * block + last) / (first + blocks * block + last)

    def _agree(self, value: int) -> int:
        """Return the smallest value of all ranks."""
        return -int(self._slowest([-value])[0])

    def _slowest(self, values: list[float]) -> list[float]:
        """Return the largest of each value over the ranks."""
        if self.setting.tp == 1:
            return values
        together = torch.tensor(values, dtype=torch.float64, device=self.place.device)
        dist.all_reduce(together, op=dist.ReduceOp.MAX)
        return together.tolist()

    def _meet(self) -> None:
        """Let all ranks begin together."""
        self._wait()
        if self.setting.tp > 1:
            dist.barrier()

    def _wait(self) -> None:
        if self.setting.cuda:
            torch.cuda.synchronize()


def _step(layers: nn.ModuleList, tokens: Tensor, labels: Tensor, clock: Clock) -> None:
    """Run forward and backward layer by layer, each in a span numbered by the layer."""
    passed: list[tuple[Tensor, Tensor]] = []
    x = tokens
    for number, layer in enumerate(layers):
        last = number == len(layers) - 1
        with clock.span("F", number):
            y = layer(x, labels).sum() / labels.numel() if last else layer(x)
        passed.append((x, y))
        x = y.detach().requires_grad_()
    gradient = None
    for number, (x, y) in reversed(list(enumerate(passed))):
        with clock.span("B", number):
            y.backward(gradient)
        gradient = x.grad


def _spread(values: list[float], layers: int) -> list[float]:
    """Return one value per layer: [first, blocks..., last] with the blocks' median repeated."""
    first, *blocks, last = values
    missing = [median(blocks)] * (layers - len(values))
    return [first, *blocks, *missing, last]
