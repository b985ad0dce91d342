"""A place's weights: the same values in every layout, from a seed or from a checkpoint's files."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import torch
from torch import Tensor

from puzzle.inputs.model import Llama, Role
from puzzle.plan.slices import Slice, held
from puzzle.run.groups import Groups
from puzzle.run.share import Share

Reader = Callable[[Slice], Tensor]
"""Gives a slice of a weight, float32."""

_DEVIATION = 0.02


def random_weights(seed: int, what: str) -> Reader:
    """Return a reader of random weights by seed: each whole tensor is drawn, then cut."""

    def read(part: Slice) -> Tensor:
        tensor = part.tensor
        if len(tensor.shape) == 1 and tensor.axis is None:  # a norm
            return torch.ones(tensor.shape)
        key = sha256(f"{seed}/{what}/{tensor.name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key[:7], "big"))
        return cut(torch.randn(tensor.shape, generator=generator) * _DEVIATION, part)

    return read


def cut(whole: Tensor, part: Slice) -> Tensor:
    """Return a slice of a whole tensor, a copy."""
    if part.tensor.axis is None:
        return whole.clone()
    return whole.narrow(part.tensor.axis, part.start, part.stop - part.start).clone()


def place_slices(model: Llama, role: Role, groups: Groups) -> tuple[Slice, ...]:
    """Return what this rank holds of a model."""
    return held(model, role, groups.layout, groups.place.stage, groups.place.slice)


class Store:
    """A model's weights on one rank: as the passes use them, and as the optimizer does.

    In half precision the main weights are float32 of their own; otherwise both are the same.
    Gradients are summed in the precision of the main weights. `sharded`: main weights are only of
    this replica's share, 1-D parts of weights (ZeRO-1).
    """

    def __init__(
        self,
        model: Llama,
        role: Role,
        groups: Groups,
        read: Reader,
        dtype: torch.dtype,
        device: torch.device,
        *,
        trained: bool,
        sharded: bool = False,
    ) -> None:
        self.slices = {s.tensor.name: s for s in place_slices(model, role, groups)}
        self.trained = trained
        sizes = {name: part.size for name, part in self.slices.items()}
        self.share: Share | None = None
        if trained and sharded and groups.data is not None:
            self.share = Share(sizes, groups.layout.data, groups.place.replica, groups.data)
        self.own = own = trained and dtype in (torch.bfloat16, torch.float16)
        self.weights: dict[str, Tensor] = {}
        self.main: dict[str, Tensor] = {}
        for name, part in self.slices.items():
            value = read(part).to(device).contiguous()
            self.weights[name] = weight = value.to(dtype)
            if self.share is None:
                self.main[name] = value if own else weight
            elif name in self.share.ranges:  # a copy, or a view of the weight that is updated
                held = self.share.cut(name, value if own else weight)
                self.main[name] = held.clone() if own else held
        if trained:
            for weight in self.weights.values():
                weight.requires_grad_(True)

    def refresh(self) -> None:
        """Round the main weights into those of the passes, and have the other replicas' shares."""
        with torch.no_grad():
            if self.share is not None:
                self.share.gather(self.main, self.weights)
            elif self.own:
                for name, weight in self.weights.items():
                    weight.copy_(self.main[name])

    def detached(self) -> dict[str, Tensor]:
        """Return the passes' weights without gradients; the storage is the same."""
        return {name: weight.detach() for name, weight in self.weights.items()}
