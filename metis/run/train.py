"""One rank's training by a plan: its slice of the layers, its passes, its optimizer steps."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from common.clock import Clock, Span
from common.errors import InputError
from metis.plan.plans import Plan, check
from metis.run.checkpoint import load, save
from metis.run.data import batch, load_tokens
from metis.run.exchange import Channel
from metis.run.groups import Groups
from metis.run.layout import sample_range
from metis.run.model import Place, build
from metis.run.parallel import sum_over
from metis.run.pipeline import Links, Pipeline
from metis.run.settings import Training
from metis.run.shards import Shards, owners
from metis.run.weights import weights
from metis.simulate.order import one_forward_one_backward


class Step(NamedTuple):
    """What one step gave: the mean loss before it, the gradient's norm, its time and spans."""

    loss: float
    gradient_norm: float
    iteration_ms: float
    spans: list[Span]


class Measures(NamedTuple):
    """What a rank measured over all its steps."""

    rank: int
    first: int
    """Number of the first step."""
    steps: list[Step]
    peak_memory_mb: float | None


class Trainer:
    """One rank of a run. All ranks construct it and call `step` together.

    Raises `InputError` where the plan does not hold together.
    """

    def __init__(
        self, plan: Plan, rank: int, *, training: Training, seed: int, device: torch.device
    ) -> None:
        check(plan)
        self.plan, self.training, self.seed, self.device = plan, training, seed, device
        self.groups = Groups(plan, rank, training.timeout_s)
        self.groups.warm_up(device)
        self.me = self.groups.me
        self.stage = plan.stages[self.me.stage]
        self.dtype: torch.dtype = getattr(torch, training.dtype)
        self.ids = load_tokens(training.tokens, plan.model)
        self.layers = self._build()
        self.shards = Shards(self.layers, plan.model, self.stage, self.me.replica)
        self.optimizer = make_optimizer(self.layers, training, self.shards.mine)
        self.clock = Clock(device)
        self.last = self.me.stage == len(plan.stages) - 1
        self.pipeline = Pipeline(
            self.layers,
            one_forward_one_backward(self.me.stage, stages=len(plan.stages), batches=plan.batches),
            self._links(),
            self.clock,
            loss_scale=1 / (plan.model.global_batch * plan.model.sequence_length),
        )

    def step(self, number: int) -> Step:
        """Train on one global batch: passes, gradient all-reduce, update."""
        tokens, labels = self._batches(number)
        dist.barrier()
        self.clock.begin()
        loss = self.pipeline.iterate(tokens, labels)
        with self.clock.span("all-reduce"):
            self._reduce_gradients()
        norm = self._clip()
        with self.clock.span("update"):
            self.optimizer.step()
            self.shards.share(self.groups.data)
        elapsed = self.clock.now_ms()
        self.layers.zero_grad()  # those of all parameters, not of its own alone
        counted = loss if self.last and self.me.slice == 0 else torch.zeros_like(loss)
        mean_loss = float(sum_over(counted, dist.group.WORLD))
        slowest = torch.tensor(elapsed, device=self.device, dtype=torch.float64)
        sum_over(slowest, dist.group.WORLD, dist.ReduceOp.MAX)
        return Step(mean_loss, norm, float(slowest), self.clock.spans())

    def _build(self) -> nn.ModuleList:
        place = Place(self.groups.tensor, self.seed, self.dtype, self.device, self.stage.recompute)
        numbers = range(self.stage.first_layer, self.stage.end_layer)
        return nn.ModuleList(build(self.plan.model, number, place) for number in numbers)

    def _links(self) -> Links:
        """Open the channels to the neighbouring stages."""
        own, stages = self.me.stage, self.plan.stages
        model, groups = self.plan.model, self.groups
        like_TH = torch.empty(
            model.sequence_length, model.hidden_size, dtype=self.dtype, device=self.device
        )

        def channel(source: int, target: int) -> Channel | None:
            if min(source, target) < 0 or max(source, target) == len(stages):
                return None
            ways = groups.forward if source < target else groups.backward
            group = ways[min(source, target)]
            assert group is not None
            return Channel(
                source=stages[source],
                target=stages[target],
                me=self.me,
                group=group,
                like_TH=like_TH,
                tensor=groups.tensor,
                patience=len(stages),
            )

        return Links(
            from_previous=channel(own - 1, own),
            to_next=channel(own, own + 1),
            from_next=channel(own + 1, own),
            to_previous=channel(own, own - 1),
        )

    def _batches(self, step: int) -> tuple[list[Tensor], list[Tensor]]:
        """Return this replica's inputs and labels, one tensor per micro-batch."""
        model = self.plan.model
        whole = batch(model, model.global_batch, seed=self.seed, step=step, ids=self.ids)
        mine = sample_range(self.stage, self.me.replica)
        parts = torch.from_numpy(whole).to(self.device).chunk(self.plan.batches)
        parts = [part[mine.start : mine.stop] for part in parts]
        return [part[:, :-1] for part in parts], [part[:, 1:] for part in parts]

    def _reduce_gradients(self) -> None:
        """Sum the replicas' gradients, one message a layer.

        Every replica scales its loss by the whole global batch, so the sum is the mean's gradient
        however unevenly the samples are spread.
        """
        if self.stage.sharded:
            self.shards.reduce(self.groups.data)
            return
        for layer in self.layers if self.groups.data else ():
            gradients = [gradient(parameter) for parameter in layer.parameters()]
            flat = sum_over(torch.cat([grad.flatten() for grad in gradients]), self.groups.data)
            for grad, part in zip(
                gradients, flat.split([grad.numel() for grad in gradients]), strict=True
            ):
                grad.copy_(part.view_as(grad))

    def _clip(self) -> float:
        """Return the norm of the whole model's gradient; scale the gradient down to `clip`."""
        squares = torch.zeros((), dtype=torch.float64, device=self.device)
        owner = owners(self.plan.model, self.stage)
        for number, layer in enumerate(self.layers, self.stage.first_layer):
            for name, weight in weights(self.plan.model, number).items():
                whole = weight.split is not None or self.me.slice == 0
                if whole and self.me.replica == owner[number, name]:
                    squares += gradient(layer.get_parameter(name)).double().square().sum()
        norm = float(sum_over(squares, dist.group.WORLD).sqrt())
        if self.training.clip is not None and norm > self.training.clip:
            for parameter in self.layers.parameters():
                gradient(parameter).mul_(self.training.clip / norm)
        return norm


def train(
    plan: Plan,
    rank: int,
    *,
    training: Training,
    seed: int,
    steps: int,
    device: torch.device,
    report: Callable[[int, float], None],
    checkpoints: Path | None = None,
) -> list[Measures]:
    """Train on this rank and return what all ranks measured, in rank order.

    Rank 0 calls `report(step, loss)` after each step, and writes below `checkpoints` if asked to.
    Raises `InputError` where there is nothing left to train.
    """
    trainer = Trainer(plan, rank, training=training, seed=seed, device=device)
    first = load(trainer, training.resume) if training.resume else 0
    if first >= steps:
        raise InputError(
            f"training.resume: {training.resume} has done {first} steps and training.steps is"
            f" {steps}; raise it"
        )
    done: list[Step] = []
    for number in range(first, steps):
        done.append(trainer.step(number))
        if rank == 0:
            report(number, done[-1].loss)
        over = number + 1 == steps or (number + 1) % max(training.checkpoint_every, 1) == 0
        if checkpoints is not None and over:
            save(trainer, number + 1, checkpoints)
    peak = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else None
    mine = Measures(rank, first, done, peak)
    every: list[Measures] = [mine] * plan.world_size
    dist.all_gather_object(every, mine)
    return every


def make_optimizer(
    layers: nn.Module,
    training: Training,
    mine: Callable[[nn.Parameter], bool] = lambda parameter: True,
) -> torch.optim.Optimizer:
    """Return AdamW of the parameters that are `mine`; it decays matrices only."""
    decayed, kept = [], []
    for name, parameter in layers.named_parameters():
        if not mine(parameter):
            continue
        (kept if name.endswith(("scale", "shift", "bias")) else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": training.weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    # A rank without a parameter of its own still takes part in every step.
    filled = [group for group in groups if group["params"]] or [{"params": []}]
    return torch.optim.AdamW(filled, lr=training.learning_rate)


def gradient(parameter: nn.Parameter) -> Tensor:
    """Return a parameter's gradient, which every parameter has after an iteration."""
    assert parameter.grad is not None
    return parameter.grad
