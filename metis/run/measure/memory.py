"""Memory that one layer needs while it trains: weights, gradients, optimizer state, activations.

On CUDA the device is asked; on a CPU the bytes are counted exactly, without temporaries.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from metis.run.settings import Training
from metis.run.train import make_optimizer

MB = 2**20


class Memory(NamedTuple):
    """Bytes of one layer: `fixed` whatever the batch, `activations` for one micro-batch."""

    fixed: int
    activations: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.fixed + self.activations


def layer_memory(layer: nn.Module, x: Tensor, labels: Tensor | None) -> Memory:
    """Return what a layer needs for a training step on `x`; the head wants labels too.

    CUDA: the growth of the peak of reserved memory. CPU: bytes of weights, gradients, optimizer
    state and of every tensor that the forward pass keeps for the backward pass.
    """
    if x.is_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_reserved() if x.is_cuda else 0
    optimizer = make_optimizer(nn.ModuleList([layer]), Training())
    kept = _Kept(layer)
    with torch.autograd.graph.saved_tensors_hooks(kept.note, lambda tensor: tensor):
        y = layer(x) if labels is None else layer(x, labels)
    y.sum().backward()
    optimizer.step()
    fixed, activations = _fixed(layer, optimizer), sum(kept.bytes.values())
    if x.is_cuda:
        weights = sum(parameter.nbytes for parameter in layer.parameters())  # part of `before`
        activations = torch.cuda.max_memory_reserved() - before + weights - fixed
    layer.zero_grad()
    x.grad = None
    return Memory(fixed, max(0, activations))


class _Kept:
    """The storages that autograd keeps, each counted once, without the layer's weights."""

    def __init__(self, layer: nn.Module) -> None:
        self.weights = {weight.untyped_storage().data_ptr() for weight in layer.parameters()}
        self.bytes: dict[int, int] = {}

    def note(self, tensor: Tensor) -> Tensor:
        """Count a saved tensor and keep it."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.weights:
            self.bytes[storage.data_ptr()] = storage.nbytes()
        return tensor


def _fixed(layer: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of weights, gradients and optimizer state."""
    weights = list(layer.parameters())
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    states = [value for state in optimizer.state.values() for value in state.values()]
    return sum(tensor.nbytes for tensor in (*weights, *gradients, *states))


def available_memory(device: torch.device, ranks: int) -> int:
    """Return the bytes that one of `ranks` ranks of this machine may still take."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024 // ranks
    raise AssertionError("/proc/meminfo has no MemAvailable")
