"""A model's update in three steps, so that no rank waits for all others between passes.

R starts summing gradients over the replicas, N starts summing their squares over the ranks of the
model, U clips, looks for what is not finite, and steps. One infinite gradient anywhere makes the
sum of squares infinite on every rank, so the norm's sum is the check too: no barrier of its own.
"""

from __future__ import annotations

from math import cos, isfinite, pi

import torch
import torch.distributed as dist
from torch import Tensor

from puzzle.inputs.ppo import Optimizer, Running
from puzzle.inputs.precision import DtypeName
from puzzle.run.groups import Groups
from puzzle.run.weights import Store

_NEVER_ZERO = 1e-6


def learning_rate(o: Optimizer, step: int, steps: int) -> float:
    """Return the rate of a step: a linear rise, then a cosine fall to the least rate."""
    rising = max(1, round(o.warmup * steps))
    if step < rising:
        return o.rate * (step + 1) / rising
    done = (step - rising) / max(1, steps - rising)
    return o.least_rate + (o.rate - o.least_rate) * 0.5 * (1 + cos(pi * done))


_LEAST_SCALE, _MOST_SCALE = 1.0, 2.0**32


class LossScale:
    """The factor on one model's loss that keeps float16 gradients in range (Micikevicius 2018).

    Every rank of the model sees the same norm, so all have the same factor without telling.
    """

    def __init__(self, running: Running, dtype: DtypeName) -> None:
        self.dynamic = dtype == "float16"
        self.value = running.loss_scale if self.dynamic else 1.0
        self.window, self.good = running.loss_scale_window, 0

    def seen(self, finite: bool) -> None:
        """Halve after a gradient that is not finite; double after `window` that are."""
        if not self.dynamic:
            return
        self.good = self.good + 1 if finite else 0
        if not finite:
            self.value = max(_LEAST_SCALE, self.value / 2)
        elif self.good == self.window:
            self.value, self.good = min(_MOST_SCALE, self.value * 2), 0


class Update:
    """The optimizer of one model on one rank."""

    def __init__(
        self, store: Store, groups: Groups, settings: Optimizer, steps: int, scale: LossScale
    ) -> None:
        self.store, self.groups, self.settings, self.steps = store, groups, settings, steps
        self.scale = scale
        for main in store.main.values():
            main.requires_grad_(True)
        matrices, vectors = (
            [m for name, m in store.main.items() if (store.weights[name].dim() > 1) == flat]
            for flat in (True, False)
        )
        groups_of = [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            [g for g in groups_of if g["params"]],
            lr=settings.rate,
            betas=settings.betas,
            foreach=False,
        )  # one tensor after the other: all at once would need another copy of all moments
        self.norm, self.skipped = 0.0, 0

    def count(self) -> int:
        """Return how many steps the optimizer has taken."""
        some = next(iter(self.store.main.values()))
        return int(self.optimizer.state[some].get("step", 0))

    def moments(self, kind: str) -> dict[str, Tensor]:
        """Return the optimizer's `exp_avg` or `exp_avg_sq` of the main weights that it holds.

        Zeros, which it then begins with, where no step was taken.
        """
        states = {name: self.optimizer.state[main] for name, main in self.store.main.items()}
        for name, main in self.store.main.items():
            states[name].setdefault(kind, torch.zeros_like(main))
        return {name: state[kind] for name, state in states.items()}

    def reduce(self) -> None:
        """Start summing gradients over the replicas, in one message.

        A sum, for each replica's losses are its shares of the mean over all. Each weight's own
        gradient is dropped as soon as it is copied, so both are never held whole. Where the
        optimizer is sharded, each replica gets the sums of its own share.
        """
        share, weights = self.store.share, list(self.store.weights.values())
        sizes = [weight.numel() for weight in weights]
        count = share.padded if share else sum(sizes)
        kind = next(iter(self.store.main.values())).dtype
        self.flat = torch.empty(count, dtype=kind, device=weights[0].device)
        self.flat[sum(sizes) :] = 0.0
        for weight, part in zip(weights, self.flat[: sum(sizes)].split(sizes), strict=True):
            part.copy_(_gradient(weight).flatten())
            weight.grad = None
        self.work = None
        if share is not None:
            self.summed, self.work = share.reduce(self.flat)
        elif self.groups.data is not None:
            self.work = dist.all_reduce(self.flat, group=self.groups.data, async_op=True)

    def sum_squares(self) -> None:
        """Start summing the gradient's squares over the ranks that hold a part of it."""
        if self.work is not None:
            self.work.wait()
        share, group = self.store.share, self.groups.model
        if share is None:
            sizes = [w.numel() for w in self.store.weights.values()]
            self.parts = dict(zip(self.store.weights, self.flat.split(sizes), strict=True))
        else:
            self.flat, group = self.summed, dist.group.WORLD
            del self.summed
            self.parts = share.parts(self.flat)
        first = self.groups.place.slice == 0
        # A copy of what another slice counts adds 0 to the norm, but not where it is infinite.
        counted = [
            torch.linalg.vector_norm(part, dtype=torch.float64).square()
            * (first or self.store.slices[name].tensor.axis is not None)
            for name, part in self.parts.items()
        ]
        self.squares = torch.stack(counted).sum()
        self.work = None
        if group is not None:
            self.work = dist.all_reduce(self.squares, group=group, async_op=True)

    def step(self, number: int) -> None:
        """Unscale, clip and update; leaves the weights as they are if the norm is not finite."""
        if self.work is not None:
            self.work.wait()
        self.norm = float(self.squares.sqrt()) / self.scale.value
        finite = isfinite(self.norm)
        if finite:
            most, scale = self.settings.clip, 1.0 / self.scale.value
            if most and self.norm > most:
                scale *= most / (self.norm + _NEVER_ZERO)
            self.flat *= scale
            for name, main in self.store.main.items():
                main.grad = self.parts[name].view_as(main)
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.settings, number, self.steps)
            self.optimizer.step()
            self.store.refresh()
        else:
            self.skipped += 1
        self.scale.seen(finite)
        for weight in (*self.store.weights.values(), *self.store.main.values()):
            weight.grad = None
        del self.flat, self.parts


def _gradient(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad
