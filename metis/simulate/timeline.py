"""A plan played as a 1F1B pipeline: when each stage computes, sends, reduces and updates.

The times are those the plan predicts per stage; the pipeline adds what the closed form of the
cost model leaves out, the waiting. Metis §4 (cost model), PipeDream-Flush for the schedule.
"""

from collections import deque

import msgspec

from common.errors import InputError
from metis.inputs.model import Model
from metis.inputs.savings import FORWARD_SHARE, done_again
from metis.plan.plans import Plan, Stage
from metis.simulate.order import Kind, one_forward_one_backward

MOST_PASSES = 1_000_000
"""Micro-batches times stages that are played at most, half a minute."""


class Pass(msgspec.Struct, frozen=True):
    """One stage's forward (F) or backward (B) pass of one micro-batch."""

    stage: int
    kind: Kind
    batch: int
    start_ms: float
    end_ms: float


class Transfer(msgspec.Struct, frozen=True):
    """One micro-batch's activations (F, to the next stage) or gradients (B, to the previous)."""

    source: int
    target: int
    kind: Kind
    batch: int
    start_ms: float
    end_ms: float


class Finish(msgspec.Struct, frozen=True):
    """The end of a stage's iteration: gradient all-reduce, then optimizer update."""

    stage: int
    start_ms: float
    reduced_ms: float
    updated_ms: float


class Timeline(msgspec.Struct, frozen=True):
    """Everything that happens in one iteration, each list in order of its start per stage."""

    passes: tuple[Pass, ...]
    transfers: tuple[Transfer, ...]
    finishes: tuple[Finish, ...]

    @property
    def pipeline_ms(self) -> float:
        """End of the last backward pass."""
        return max(finish.start_ms for finish in self.finishes)

    @property
    def iteration_ms(self) -> float:
        """End of the last update."""
        return max(finish.updated_ms for finish in self.finishes)

    @property
    def bubbles(self) -> tuple[float, ...]:
        """Share of `pipeline_ms` in which each stage waits, in 0..1."""
        busy = [0.0] * len(self.finishes)
        for item in self.passes:
            busy[item.stage] += item.end_ms - item.start_ms
        return tuple(max(0.0, 1 - time / self.pipeline_ms) for time in busy)


class _Player:
    """The state of one play: what has arrived where, and when each stage and link is free."""

    def __init__(self, plan: Plan, forward_share: float) -> None:
        stages, batches = plan.stages, plan.batches
        self.stages = stages
        self.forward_shares = [_share(plan.model, stage, forward_share) for stage in stages]
        self.orders = [
            deque(one_forward_one_backward(stage, stages=len(stages), batches=batches))
            for stage in range(len(stages))
        ]
        self.ready = {(0, "F", batch): 0.0 for batch in range(batches)}
        self.stage_free = [0.0] * len(stages)
        self.link_free: dict[tuple[int, int], float] = {}
        self.passes: list[Pass] = []
        self.transfers: list[Transfer] = []

    def play(self) -> None:
        """Run every pass as soon as its stage is free and its input is there."""
        waiting = deque(range(len(self.stages)))
        while waiting:
            stage = waiting.popleft()
            while self.orders[stage] and (stage, *self.orders[stage][0]) in self.ready:
                waiting.extend(self.run(stage, *self.orders[stage].popleft()))
        assert not any(self.orders), "a pass waits for an input that nobody sends"

    def run(self, stage: int, kind: Kind, batch: int) -> list[int]:
        """Run one pass and hand its result on; return the stages that it may have woken."""
        forward = self.forward_shares[stage]
        share = forward if kind == "F" else 1 - forward
        start = max(self.stage_free[stage], self.ready.pop((stage, kind, batch)))
        end = start + share * self.stages[stage].execution_ms
        self.stage_free[stage] = end
        self.passes.append(Pass(stage, kind, batch, start, end))
        if kind == "F" and stage == len(self.stages) - 1:
            self.ready[stage, "B", batch] = end
            return []
        target = stage + 1 if kind == "F" else stage - 1
        return self.send(stage, target, kind, batch, end) if target >= 0 else []

    def send(self, source: int, target: int, kind: Kind, batch: int, now: float) -> list[int]:
        """Carry a result over the link, which holds one transfer per direction at a time."""
        duration = self.stages[min(source, target)].send_ms / 2
        start = max(now, self.link_free.get((source, target), 0.0))
        self.link_free[source, target] = self.ready[target, kind, batch] = start + duration
        if duration:
            transfer = Transfer(source, target, kind, batch, start, start + duration)
            self.transfers.append(transfer)
        return [target]


def _share(model: Model, stage: Stage, forward_share: float) -> float:
    """Return a stage's share; what it does again lengthens its backward pass."""
    if stage.recompute == "none":
        return forward_share
    again = max(done_again(model, stage.recompute)[stage.first_layer : stage.end_layer])
    return forward_share / (1 + again * forward_share)


def play(plan: Plan, forward_share: float = FORWARD_SHARE) -> Timeline:
    """Play one iteration of a plan; times in ms from its start.

    A stage's `send_ms` is one micro-batch's exchange with the next stage in both directions: half
    carries the activations forward, half the gradients back. It delays the receiver and leaves
    both stages free to compute. O(stages x micro-batches).

    Raises:
        InputError: the plan has more passes than can be played.
    """
    if len(plan.stages) * plan.batches > MOST_PASSES:
        raise InputError(
            f"the plan has {plan.batches:,} micro-batches on {len(plan.stages)} stages, more than"
            f" the {MOST_PASSES:,} that are played one by one; plan for a smaller"
            " model.global_batch"
        )
    assert 0 < forward_share < 1, "the forward pass takes a part of the execution time"
    player = _Player(plan, forward_share)
    player.play()
    finishes = tuple(
        Finish(
            number,
            free,
            free + stage.allreduce_ms,
            free + stage.allreduce_ms + stage.update_ms,
        )
        for number, (stage, free) in enumerate(zip(plan.stages, player.stage_free, strict=True))
    )
    return Timeline(
        tuple(sorted(player.passes, key=lambda item: (item.stage, item.start_ms))),
        tuple(sorted(player.transfers, key=lambda item: (item.source, item.target, item.batch))),
        finishes,
    )
