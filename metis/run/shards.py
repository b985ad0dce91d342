"""The optimizer's states and work shared out over a stage's replicas (ZeRO stage 1).

Whole parameters are dealt out, largest first, each to the replica that has least so far. Gradients
are summed at the owner only, which updates the parameter and hands it to the others. Adam works
value by value, so weights come out as they do when each replica updates all.
"""

from math import prod

import torch
import torch.distributed as dist
from torch import nn

from metis.inputs.model import Model
from metis.plan.plans import Stage
from metis.run.weights import weights

Owners = dict[tuple[int, str], int]
"""Replica by layer and weight."""


def owners(model: Model, stage: Stage) -> Owners:
    """Return the replica that updates each weight of a stage, the same for all tensor slices.

    Of a stage that is not sharded, where all replicas update all, it is the first.
    """
    layers = range(stage.first_layer, stage.end_layer)
    sizes = {
        (layer, name): prod(weight.shape)
        for layer in layers
        for name, weight in weights(model, layer).items()
    }
    held, found = [0] * (stage.dp if stage.sharded else 1), Owners()
    for key in sorted(sizes, key=lambda key: -sizes[key]):
        found[key] = held.index(min(held))
        held[found[key]] += sizes[key]
    return found


class Shards:
    """A rank's parameters by the replica that updates them."""

    def __init__(self, layers: nn.ModuleList, model: Model, stage: Stage, replica: int) -> None:
        self.sharded = stage.sharded
        found = owners(model, stage)
        parts: dict[int, list[nn.Parameter]] = {owner: [] for owner in found.values()}
        for number, layer in enumerate(layers, stage.first_layer):
            for name, parameter in layer.named_parameters():
                parts[found[number, name]].append(parameter)
        self.parts = parts
        self._others = {id(p) for owner, part in parts.items() if owner != replica for p in part}

    def mine(self, parameter: nn.Parameter) -> bool:
        """Say whether this rank updates a parameter."""
        return not self.sharded or id(parameter) not in self._others

    def reduce(self, group: dist.ProcessGroup | None) -> None:
        """Sum the replicas' gradients where they are used, one message an owner."""
        if group is None:
            return
        for owner, part in self.parts.items():
            gradients = [p.grad for p in part if p.grad is not None]
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            dist.reduce(flat, dst=dist.get_global_rank(group, owner), group=group)
            _unpack(flat, gradients)

    def share(self, group: dist.ProcessGroup | None) -> None:
        """Hand the parameters from their owners to the other replicas."""
        if group is None or not self.sharded:
            return
        for owner, part in self.parts.items():
            values = [p.data for p in part]
            flat = torch.cat([value.flatten() for value in values])
            dist.broadcast(flat, src=dist.get_global_rank(group, owner), group=group)
            _unpack(flat, values)


def _unpack(flat: torch.Tensor, tensors: list[torch.Tensor]) -> None:
    """Copy the parts of a flat tensor to where they came from."""
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))
